"""When the validators of the contract's models are built; a process that wants the other way says so before it imports any.

At import a process pays for all models at once and meets no delay later, which suits a server. A VM's daemon sets
``at_first_use``, so that it listens before it has built any and never builds those it does not need.
"""

at_first_use = False
