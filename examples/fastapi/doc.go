// Package fastapi holds an example: a FastAPI app with SQLAlchemy beside the
// worker. The app is app.py and what it imports; README.md says how it is put
// together.
//
// There is no Go here but the example's check, which starts PostgreSQL, Redis,
// the worker and the app, and follows a run and its book all the way round. It
// wants the Python packages that `make test` installs, and stops what it started.
package fastapi
