#!/bin/sh
# Write .env: the lines of .env.example, its empty secrets filled with random ones.
# Usage: sh deploy/make-env.sh [FILE]; a file that is there is never written over.
set -eu
umask 077
example="$(dirname "$0")/../.env.example"
target="${1:-$(dirname "$0")/../.env}"

if [ -e "$target" ]; then
    echo "$target is there already; its secrets are those of your data." >&2
    exit 1
fi

# 40 digits: no store takes longer secrets.
random() {
    head -c 20 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

new="$target.new"
while IFS= read -r line; do
    case "$line" in
    *_PASSWORD= | *_SECRET= | *_SECRET_KEY=) printf '%s%s\n' "$line" "$(random)" ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$example" >"$new"
mv "$new" "$target"
echo "$target is written. Set COLDFUSION_SITE in it, then: docker compose up -d"
