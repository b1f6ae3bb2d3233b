"""Mythic's tables, as far as the example writes them."""

import os

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Integer, Text, create_engine, func
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import declarative_base, sessionmaker

Base = declarative_base()


class User(Base):
    __tablename__ = "users"
    id = Column(UUID(as_uuid=True), primary_key=True, server_default=func.gen_random_uuid())
    clerk_user_id = Column(Text, unique=True)


class Book(Base):
    __tablename__ = "books"
    id = Column(UUID(as_uuid=True), primary_key=True, server_default=func.gen_random_uuid())
    user_id = Column(UUID(as_uuid=True), ForeignKey("users.id", ondelete="CASCADE"))
    run_id = Column(Text)
    title = Column(Text)
    profile_username = Column(Text)
    is_completed = Column(Boolean)
    has_html = Column(Boolean)
    has_pdf = Column(Boolean)
    created_at = Column(DateTime(timezone=True), server_default=func.now())


class ProcessingSession(Base):
    __tablename__ = "processing_sessions"
    id = Column(UUID(as_uuid=True), primary_key=True, server_default=func.gen_random_uuid())
    run_id = Column(Text, unique=True)
    user_id = Column(UUID(as_uuid=True), ForeignKey("users.id"))
    instagram_url = Column(Text)
    status = Column(Text)
    current_stage = Column(Text)
    progress_percentage = Column(Integer)
    error_message = Column(Text)
    completed_at = Column(DateTime(timezone=True))


def _url() -> str:
    # SQLAlchemy wants the dialect's full name where libpq takes either.
    url = os.environ["DATABASE_URL"]
    return "postgresql" + url[len("postgres"):] if url.startswith("postgres:") else url


engine = create_engine(_url(), pool_pre_ping=True, future=True)
Session = sessionmaker(engine, expire_on_commit=False, future=True)
