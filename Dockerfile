# The gateway, installed from the hashed lock file. Data lies in /data; the process is not root.
#   docker build -t tollgate .
#   docker run -p 8080:8080 -v tollgate:/data tollgate
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/tollgate
ENV PATH=/opt/tollgate/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.lock .
RUN pip install --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home tollgate && install -d -o tollgate -g tollgate -m 700 /data
COPY --from=build /opt/tollgate /opt/tollgate
ENV PATH=/opt/tollgate/bin:$PATH PYTHONUNBUFFERED=1 TOLLGATE_DATA=/data TOLLGATE_PORT=8080
USER tollgate
WORKDIR /home/tollgate
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD \
    ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"TOLLGATE_PORT\"]}/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollgate"]
CMD ["serve", "--host", "0.0.0.0"]
