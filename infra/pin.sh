#!/bin/sh
# Pin the images of infra/images.txt to the current digests of their tags, in all files that name
# them. Needs docker with buildx and the registries; changes nothing if a digest is missing.
set -eu
cd "$(dirname "$0")/.."
FILES='infra/images.txt infra/compose.yaml infra/Containerfile mlflow/Containerfile'
script=$(mktemp)
trap 'rm -f "$script"' EXIT
for line in $(grep -v '^#' infra/images.txt); do
  image=${line%@*}
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
  if ! printf '%s\n' "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}'; then
    echo "infra/pin.sh: $image: no digest, but: $digest" >&2
    exit 1
  fi
  echo "$image@$digest"
  pattern=$(printf '%s' "$image" | sed 's/\./\\./g')
  printf 's#(^|[ ])%s(@sha256:[0-9a-f]{64})?($|[ ])#\\1%s@%s\\3#\n' "$pattern" "$image" "$digest" \
    >>"$script"
done
# shellcheck disable=SC2086
sed -E -i -f "$script" $FILES
