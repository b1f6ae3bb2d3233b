"""A small app beside the worker: it writes to PostgreSQL and nowhere else, and
reads what is read often through the worker.

    DATABASE_URL=… AUTH_JWT_SECRET=… uvicorn app:app --port 8000
"""

import secrets
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from auth import caller
from models import Book, ProcessingSession, Session, User
from worker import publish, read, transaction_id

app = FastAPI(title="Mythic, in small")


class NewRun(BaseModel):
    instagram_url: str
    style: str = "classic"
    format: str = "pdf"


class Progress(BaseModel):
    current_stage: str
    progress_percentage: int = Field(ge=0, le=100)


class NewBook(BaseModel):
    title: str
    profile_username: str


def own_run(session, run_id: str, user: str) -> ProcessingSession:
    """The run, locked until the transaction ends; 404 unless it is the user's."""
    run = session.execute(
        select(ProcessingSession)
        .join(User, User.id == ProcessingSession.user_id)
        .where(ProcessingSession.run_id == run_id, User.clerk_user_id == user)
        .with_for_update(of=ProcessingSession)
    ).scalar_one_or_none()
    if run is None:
        raise HTTPException(404, "You have no such run")
    return run


@app.post("/runs", status_code=201)
def start_run(new: NewRun, response: Response, user: str = Depends(caller)):
    run_id = secrets.token_hex(8).upper()
    with Session.begin() as session:
        session.execute(insert(User).values(clerk_user_id=user).on_conflict_do_nothing())
        owner = session.execute(select(User).where(User.clerk_user_id == user)).scalar_one()
        session.add(
            ProcessingSession(
                run_id=run_id, user_id=owner.id, instagram_url=new.instagram_url,
                status="processing", current_stage="starting", progress_percentage=0,
            )
        )
        session.flush()
        # Row and event are one transaction: there is no run without its event.
        publish(session, "run.started", run_id, {"message": "The run has started", "style": new.style, "format": new.format})
        response.headers["X-Min-Xid"] = transaction_id(session)
    return {"run_id": run_id}


@app.post("/runs/{run_id}/progress", status_code=204)
def progress(run_id: str, step: Progress, response: Response, user: str = Depends(caller)):
    with Session.begin() as session:
        run = own_run(session, run_id, user)
        run.current_stage, run.progress_percentage = step.current_stage, step.progress_percentage
        session.flush()
        publish(session, "run.progress", run_id, {"message": f"At {step.current_stage}", "stages": {"data_collected": True}})
        response.headers["X-Min-Xid"] = transaction_id(session)


@app.post("/runs/{run_id}/book", status_code=201)
def finish_run(run_id: str, new: NewBook, response: Response, user: str = Depends(caller)):
    with Session.begin() as session:
        run = own_run(session, run_id, user)
        publish(session, "run.finished", run_id, {"message": "The book is ready", "stages": {"book_generated": True}})
        if run.status == "completed":
            # Leaving the block by an exception rolls back, and the event with it.
            raise HTTPException(409, "This run has its book already")
        run.status, run.current_stage, run.progress_percentage, run.completed_at = "completed", "done", 100, func.now()
        book = Book(
            user_id=run.user_id, run_id=run_id, title=new.title, profile_username=new.profile_username,
            is_completed=True, has_html=True, has_pdf=False,
        )
        session.add(book)
        session.flush()
        response.headers["X-Min-Xid"] = transaction_id(session)
        # No event for the book: the worker sees the row.
        return {"id": str(book.id)}


# These two the worker serves by itself; they are here for as long as no proxy
# routes their paths to it.


@app.get("/status/{run_id}")
def status(run_id: str, request: Request):
    return read("/status/" + quote(run_id, safe=""), request)


@app.get("/books/my")
def my_books(request: Request):
    return read("/books/my", request)
