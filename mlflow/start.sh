#!/bin/sh
# MLflow's tracking server with users and passwords. Everything it needs comes from the environment:
#   MLFLOW_BACKEND_STORE_URI, MLFLOW_AUTH_STORE_URI   databases; both are brought up to date first
#   MLFLOW_ADMIN_USERNAME, MLFLOW_ADMIN_PASSWORD      the first user, of 12 characters or more
#   MLFLOW_FLASK_SERVER_SECRET_KEY                    signs the forms of the log-in page
# and what server.env sets; a value that is set already wins.
set -eu
: "${MLFLOW_ADMIN_USERNAME:?}" "${MLFLOW_ADMIN_PASSWORD:?}" "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
HERE=$(cd "$(dirname "$0")" && pwd)
while IFS='=' read -r name value; do
  case $name in '' | \#*) continue ;; esac
  eval "test -n \"\${$name+set}\"" || export "$name=$value"
done <"$HERE/server.env"
umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH
# Its parser reads % as the start of a reference.
escape() { printf '%s' "$1" | sed 's/%/%%/g'; }
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = EDIT
database_uri = $(escape "${MLFLOW_AUTH_STORE_URI:-sqlite:///mlflow_auth.db}")
admin_username = $MLFLOW_ADMIN_USERNAME
admin_password = $(escape "$MLFLOW_ADMIN_PASSWORD")
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
# As `mlflow db upgrade` does, which takes the address, with its password, on its command line.
python -c 'import os, mlflow.db; mlflow.db.upgrade.callback(os.environ["MLFLOW_BACKEND_STORE_URI"])'
exec mlflow server --app-name basic-auth
