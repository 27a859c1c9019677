#!/bin/sh
# Makes what docker-compose.yml needs and this checkout does not have: secrets/, config/settings.toml, .env.
# What is there already stays as it is; so a secret is changed by deleting its file, or writing another one, and starting anew.
set -eu
cd "$(dirname "$0")/.."
umask 077

mkdir -p secrets config
# Closed by the directory: inside a container each file has to be read by whichever user runs there.
chmod 700 secrets
chmod 755 config

secret() {  # secret NAME: its value from stdin, if it is not there yet
    if [ -s "secrets/$1" ]; then cat > /dev/null; else cat > "secrets/$1.new"; mv "secrets/$1.new" "secrets/$1"; fi
    chmod 444 "secrets/$1"
}
random() { openssl rand -hex "$1"; }

echo "requirepass $(random 24)" | secret redis_conf
echo "redis://:$(sed -n 's/^requirepass //p' secrets/redis_conf)@redis:6379/0" | secret redis_url
random 24 | secret web_token
echo "collector-$(random 6)" | secret s3_access_key
random 24 | secret s3_secret_key
echo "collector:$(random 16)" | secret flower_basic_auth
random 32 | secret flower_cookie
random 16 | secret grafana_password

[ -e .env ] || cp .env.example .env
if [ ! -e config/settings.toml ]; then
    cp settings.toml config/settings.toml
    chmod 644 config/settings.toml
fi
# Whom the containers run as: `collector markets add` writes here.
if [ "$(id -u)" = 0 ]; then
    chown -R 10001 config
else
    echo "for \`collector markets add\` inside the containers: sudo chown -R 10001 config" >&2
fi
echo "secrets/, config/settings.toml and .env are ready; now: docker compose up --detach" >&2
