# CPU only, without root, the default model included.
#   docker build -t sppnet .
#   docker run --rm -v "$PWD/images:/data" sppnet detect /data --output /data/found
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY LICENSES ./LICENSES
COPY src ./src
# The CPU build of torch: give its index, for instance the one that pytorch.org names for "CPU"
ARG TORCH_INDEX=""
RUN python -m venv /opt/sppnet \
    && if [ -n "$TORCH_INDEX" ]; then /opt/sppnet/bin/pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch; fi \
    && /opt/sppnet/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
COPY --from=build /opt/sppnet /opt/sppnet
RUN useradd --create-home --uid 10001 sppnet
USER 10001
WORKDIR /data
ENV PATH=/opt/sppnet/bin:$PATH OMP_WAIT_POLICY=passive
# Compiles the kernels now, so that no container has to
RUN python -c "import sppnet; sppnet.SPPDetector.load().warm_up()"
ENTRYPOINT ["sppnet"]
CMD ["--help"]
