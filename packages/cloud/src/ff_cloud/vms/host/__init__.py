"""What VMs need of the machine itself, where we are root on it: their network, their disks, the rules about the outside."""
