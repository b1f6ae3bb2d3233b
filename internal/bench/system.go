package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"mythiccache/internal/bench/process"
)

// system is the program in all its roles, beside servers of its own.
type system struct {
	*process.Deployment
	face *process.Face
}

// startSystem starts servers that sync to disk as real ones do, and the program.
func startSystem(ctx context.Context, dir, program string) (*system, error) {
	d, err := process.Deploy(ctx, process.Setup{Dir: dir, Program: program, Settings: map[string]string{"fsync": "on"}})
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	face, err := d.Serve(ctx, "all", "relay,workers,api")
	if err != nil {
		return nil, errors.Join(err, d.Close(ctx))
	}
	fmt.Printf("ready %d ms after its start\n", time.Since(begun).Milliseconds())
	return &system{Deployment: d, face: face}, nil
}

func (s *system) get(ctx context.Context, path, token string) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.face.Address+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	return w.StatusCode, body, err
}
