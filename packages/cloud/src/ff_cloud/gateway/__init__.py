"""The door of VMs to the outside: it knows them by tokens of their own and puts their owners' secrets in on the way out."""
