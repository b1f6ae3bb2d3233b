package api

import (
	"net/http"
	"slices"
)

// model is one in the form of OpenAI's list of models.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"` // nobody here knows: 0
	OwnedBy string `json:"owned_by"`
}

func modelNamed(name string) model {
	return model{ID: name, Object: "model", OwnedBy: "mythic-cache"}
}

// getModels lists the names under which models may be asked for.
func (d *chatDesk) getModels(x *exchange) error {
	if err := chatCaller(x); err != nil {
		return err
	}
	list := []model{}
	for _, name := range d.server.o.Models.Names() {
		list = append(list, modelNamed(name))
	}
	return x.json(http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", list})
}

// getModel tells whether there is a model of a name.
func (d *chatDesk) getModel(x *exchange) error {
	if err := chatCaller(x); err != nil {
		return err
	}
	name := x.request.PathValue("model")
	if !slices.Contains(d.server.o.Models.Names(), name) {
		return unknownModel()
	}
	return x.json(http.StatusOK, modelNamed(name))
}

// unknownModel is the problem of a model that is not configured.
func unknownModel() *Problem {
	p := notFound()
	p.Detail = "there is no such model here: GET /v1/models lists those that there are"
	p.param, p.code = "model", "model_not_found"
	return p
}
