"""PostgreSQL and an S3 store on loopback, each for one test: started here, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.server.local_api import free_port, wait_until_healthy

#: Where Debian keeps the server's programs.
VERSIONS = Path("/usr/lib/postgresql")


@contextlib.contextmanager
def postgres(folder: Path, databases: Sequence[str]) -> Iterator[str]:
    """Start a server with these databases; yield `user:password@host:port`.

    It runs as the user `postgres` where the tests run as root, whom the server refuses.
    """
    found = sorted(VERSIONS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is missing: apt-get install postgresql"
    tools, port, password = found[-1].parent, free_port(), "secret-for-tests"
    data = folder / "postgres"
    data.mkdir(parents=True)
    (data / "password").write_text(password)
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (data, data / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        for above in (folder, *folder.parents):
            with contextlib.suppress(PermissionError):
                above.chmod(above.stat().st_mode | 0o011)
    as_owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    create = [str(tools / "initdb"), "-D", f"{data}/main", "-U", "lori", "-A", "scram-sha-256",
              "--pwfile", f"{data}/password", "--no-sync", "-E", "UTF8"]  # fmt: skip
    subprocess.run([*as_owner, *create], check=True, capture_output=True, cwd="/")
    # Without `jit: off` the query behind the graph of a run takes most of a minute.
    settings = {"jit": "off", "port": port, "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "", "fsync": "off", "max_connections": 200}  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [*as_owner, str(tools / "postgres"), "-D", f"{data}/main", *options]
    log = (folder / "postgres.log").open("wb")
    with log, subprocess.Popen(command, cwd="/", stdout=log, stderr=log) as server:
        try:
            where = f"lori:{password}@127.0.0.1:{port}"
            for name in databases:
                _create_database(where, name)
            yield where
        finally:
            # Of the server itself, behind `runuser`: SIGINT, which disconnects its clients.
            pid = int((data / "main" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, 2)
            server.wait(30)


def _create_database(where: str, name: str) -> None:
    import psycopg2

    limit = time.monotonic() + 60
    while True:
        try:
            connection = psycopg2.connect(f"postgresql://{where}/postgres")
            break
        except psycopg2.OperationalError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
    connection.close()


@contextlib.contextmanager
def s3(buckets: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start an S3 store with these buckets; yield the variables its clients need."""
    import boto3

    port = free_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as server:  # type: ignore[call-overload]
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/moto-api/")
            client = boto3.client(
                "s3",
                endpoint_url=variables["AWS_ENDPOINT_URL_S3"],
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
                region_name="us-east-1",
            )
            for bucket in buckets:
                client.create_bucket(Bucket=bucket)
            client.close()
            yield variables
        finally:
            server.terminate()
