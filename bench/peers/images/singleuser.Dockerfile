# A JupyterHub user's server without the web interface, which is the fastest to start; on the same Debian as our image.
ARG BASE_IMAGE=ff-base:trixie
FROM ${BASE_IMAGE}
RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY trust.py extra-ca.crt /tmp/ca/
RUN python3 -B /tmp/ca/trust.py /tmp/ca/extra-ca.crt && rm -rf /tmp/ca
COPY requirements-singleuser.txt /tmp/
RUN export PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
 && python3 -m venv /opt/jupyter \
 && /opt/jupyter/bin/pip install --no-cache-dir --quiet --require-hashes -r /tmp/requirements-singleuser.txt \
 && /opt/jupyter/bin/python -m compileall -q /opt/jupyter/lib \
 && useradd --create-home --shell /bin/bash jovyan
ENV PATH=/opt/jupyter/bin:/usr/local/bin:/usr/bin:/bin \
    JUPYTERHUB_SINGLEUSER_APP=jupyter_server.serverapp.ServerApp \
    LANG=C.UTF-8
USER jovyan
WORKDIR /home/jovyan
CMD ["jupyterhub-singleuser"]
