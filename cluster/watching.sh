#!/usr/bin/env bash
# Prometheus and Grafana for the dashboard, on the head of a cluster and on 127.0.0.1 only:
#   watching.sh install   fetches what is missing: Prometheus from the system's packages, Grafana from its makers
#   watching.sh start     starts both after `ray start --head`, which writes their configuration
# Neither is needed for work, so that no failure here stops a cluster: what is missing is said in one line.
set -u

GRAFANA_VERSION=11.4.0
GRAFANA_HOME="${GRAFANA_HOME:-$HOME/grafana-$GRAFANA_VERSION}"
METRICS=/tmp/ray/session_latest/metrics
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

say() { echo "watching: $*"; }

install_prometheus() {
  command -v prometheus > /dev/null && return
  # No service of its own: it would listen on all addresses.
  local quietly="env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive"
  { timeout 300 sudo -n apt-get update -qq \
    && timeout 300 sudo -n $quietly apt-get install -y -qq --no-install-recommends prometheus; } > /dev/null 2>&1 \
    || say "no Prometheus: apt-get install prometheus failed; the dashboard will have no graphs"
}

install_grafana() {
  [ -x "$GRAFANA_HOME/bin/grafana" ] && return
  local archive="grafana-$GRAFANA_VERSION.linux-amd64.tar.gz" folder
  folder="$(mktemp -d)"
  if ( cd "$folder" \
    && curl -fsSL --max-time 300 -o "$archive" "https://dl.grafana.com/oss/release/$archive" \
    && curl -fsSL --max-time 60 -o sum "https://dl.grafana.com/oss/release/$archive.sha256" \
    && echo "$(cut -c1-64 sum)  $archive" | sha256sum --check --quiet \
    && mkdir -p "$GRAFANA_HOME" && tar -xzf "$archive" --strip-components=1 -C "$GRAFANA_HOME" ) > /dev/null 2>&1
  then :; else say "no Grafana: $archive could not be fetched; see docs/watching.md"; fi
  rm -rf "$folder"
}

start_prometheus() {
  command -v prometheus > /dev/null || { say "no Prometheus here"; return; }
  setsid nohup prometheus --config.file="$METRICS/prometheus/prometheus.yml" --web.listen-address=127.0.0.1:9090 \
    --storage.tsdb.path="$HOME/prometheus-data" > "$HOME/prometheus.log" 2>&1 < /dev/null &
  say "Prometheus: http://127.0.0.1:9090"
}

start_grafana() {
  [ -x "$GRAFANA_HOME/bin/grafana" ] || { say "no Grafana here"; return; }
  cp "$HERE/grafana/mlim_ray.json" "$METRICS/grafana/dashboards/"
  GF_SERVER_HTTP_ADDR=127.0.0.1 GF_ANALYTICS_REPORTING_ENABLED=false GF_ANALYTICS_CHECK_FOR_UPDATES=false \
    setsid nohup "$GRAFANA_HOME/bin/grafana" server --homepath "$GRAFANA_HOME" --config "$METRICS/grafana/grafana.ini" \
    > "$HOME/grafana.log" 2>&1 < /dev/null &
  say "Grafana: http://127.0.0.1:3000"
}

# The dashboard writes both configurations, shortly after `ray start` has returned.
wait_for_configuration() {
  for _ in $(seq 60); do
    [ -f "$METRICS/prometheus/prometheus.yml" ] && [ -f "$METRICS/grafana/grafana.ini" ] && return
    sleep 1
  done
  say "Ray wrote no configuration to $METRICS within a minute: is the dashboard running?"
  return 1
}

case "${1:-}" in
  install) install_prometheus; install_grafana ;;
  start) if wait_for_configuration; then start_prometheus; start_grafana; fi ;;
  *) say "given '${1:-}', expected install or start" >&2; exit 2 ;;
esac
exit 0
