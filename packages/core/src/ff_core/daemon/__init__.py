"""The HTTP door inside a VM. It answers the control plane and calls nobody."""
