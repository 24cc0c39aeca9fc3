# SWE-ReX's own server on the same Debian as our image, ready to start: nothing is installed when a container starts.
ARG BASE_IMAGE=ff-base:trixie
FROM ${BASE_IMAGE}
RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY trust.py extra-ca.crt /tmp/ca/
RUN python3 -B /tmp/ca/trust.py /tmp/ca/extra-ca.crt && rm -rf /tmp/ca
COPY requirements-swerex.txt /tmp/
RUN export PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
 && python3 -m venv /opt/swerex \
 && /opt/swerex/bin/pip install --no-cache-dir --quiet --require-hashes -r /tmp/requirements-swerex.txt \
 && ln -s /opt/swerex/bin/swerex-remote /usr/local/bin/swerex-remote \
 && swerex-remote --version
