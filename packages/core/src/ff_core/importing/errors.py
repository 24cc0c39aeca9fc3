"""What can go wrong with an import."""

from ff_core.errors import InvalidInput


class ImportUnreadable(InvalidInput):
    """This is neither a database nor a version 4 export of Factory Factory, or it can't be read."""

    code = "import_unreadable"
