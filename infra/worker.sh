#!/bin/sh
# Start a worker in a container or an allocation: create a workspace from the image's code first.
set -eu
WORKSPACE=${LORI_WORKSPACE:-/workspace/lori}
POOL=${LORI_POOL:-lori}
# They become arguments of git and dvc, which all users can see, and are stored in their config.
for name in LORI_REPOSITORY LORI_REMOTE; do
  eval "address=\${$name:-}"
  case $address in
    *://*:*@*)
      echo "$name: holds a password; take it out and use a git credential helper, a deploy key or the" \
        "store's own variables (AWS_SECRET_ACCESS_KEY)" >&2
      exit 2
      ;;
  esac
done
if [ ! -d "$WORKSPACE/.git" ]; then
  if [ -n "${LORI_REPOSITORY:-}" ]; then
    git clone --branch "${LORI_BRANCH:-main}" "$LORI_REPOSITORY" "$WORKSPACE"
  else
    # No repository is given: use the image's code, as a git repository of this workspace.
    mkdir -p "$WORKSPACE"
    cp -r /opt/lori/. "$WORKSPACE"
    git -C "$WORKSPACE" init --quiet
  fi
fi
cd "$WORKSPACE"
if [ -n "${LORI_REMOTE:-}" ]; then
  dvc remote add --local --force --default store "$LORI_REMOTE"
  if [ -n "${AWS_ENDPOINT_URL_S3:-}" ]; then
    dvc remote modify --local store endpointurl "$AWS_ENDPOINT_URL_S3"
  fi
fi
if [ -n "${LORI_POOL_TEMPLATE:-}" ]; then
  prefect work-pool create "$POOL" --type kubernetes --base-job-template "$LORI_POOL_TEMPLATE" \
    --overwrite
else
  # Its job template lets neither deployments nor runs set a command.
  prefect work-pool create "$POOL" --type process \
    --base-job-template flows/server/work_pool.json --overwrite
fi
prefect --no-prompt deploy --all --prefect-file "${LORI_PREFECT_FILE:-prefect.yaml}"
python -m flows.server.automations
exec prefect worker start --pool "$POOL"
