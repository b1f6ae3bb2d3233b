// Package watch measures how soon those who watch runs see a change, and what each of
// them costs: `make bench-watch`.
//
// The program as it ships runs as relay and workers in one process and as API in
// another. This process is ten thousand clients of server-sent events, ten to a run
// and ten to a user, and the app that changes runs, a hundred a second. The time is
// from when a commit has returned to when a client has read the event's last byte, all
// by one clock; memory is what the API's process has grown by, as the kernel sees it.
//
// It does not promise figures that hold on another machine: clients, program and
// servers share its processors. A figure that is missed is a result, not an error.
// Everything that Run starts has ended when it returns.
package watch
