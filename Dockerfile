# CPU only, without root; the default model and its compiled kernels are in it.
#
#   docker build -t sppnet .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" sppnet detect holiday --output found
#   docker run --rm -p 127.0.0.1:9090:9090 sppnet serve --host 0.0.0.0
FROM python:3.12-slim AS build
WORKDIR /source
# uv can ask for the CPU build of torch; pip would fetch gigabytes for GPUs
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /opt/sppnet
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY LICENSES ./LICENSES
COPY src ./src
# Kernels are compiled by root beside the sources, and may be read by all: so every user finds them and trusts them
RUN uv pip install --python /opt/sppnet/bin/python --no-cache --compile-bytecode \
        --torch-backend cpu -c constraints.txt ".[studio]" \
    && /opt/sppnet/bin/python -c "import sppnet; sppnet.SPPDetector.load().warm_up()" \
    && chmod -R a+rX /opt/sppnet

FROM python:3.12-slim
COPY --from=build /opt/sppnet /opt/sppnet
RUN useradd --uid 10001 --create-home sppnet
USER 10001
WORKDIR /data
# HOME: a folder that every user may write to, whatever --user says
ENV PATH=/opt/sppnet/bin:$PATH HOME=/tmp OMP_WAIT_POLICY=passive
EXPOSE 9090
ENTRYPOINT ["sppnet"]
CMD ["--help"]
