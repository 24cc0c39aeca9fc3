"""What can go wrong between us and the engine that makes VMs."""

from ff_core.errors import FFError


class DockerUnreachable(FFError):
    """The Docker Engine does not answer. Run `scripts/bootstrap.sh docker`, or set DOCKER_HOST to one that does."""

    code = "docker_unreachable"
    status = 503


class ImageMissing(FFError):
    """The image that VMs are made from is not on the Docker Engine. Run `ff-cloud image build`."""

    code = "image_missing"
    status = 503


class ImageBuildFailed(FFError):
    """The workspace image could not be built; the lines before this one say which step failed and why."""

    code = "image_build_failed"
    status = 500
