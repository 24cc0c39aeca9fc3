"""The one metadata that the rooms' ``tables`` modules describe their tables in. Migrations are written by hand."""

from sqlalchemy import MetaData

metadata = MetaData()
