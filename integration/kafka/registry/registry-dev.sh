#!/usr/bin/env bash
# A real schema registry on loopback for tests and local use: Apicurio Registry, in memory. Needs Java 17+; Maven only on
# the first start.
#
#   registry-dev.sh fetch        fetch it into the cache folder, if it is not there
#   registry-dev.sh run [port]   run it until standard input ends; its REST API is at http://127.0.0.1:PORT/apis/ccompat/v7.
#                                Without a port a free one is taken: the log on standard output says which
#
# LEAT_KAFKA_CACHE  where it is kept (${XDG_CACHE_HOME:-$HOME/.cache}/leat-kafka)
set -euo pipefail

die() { echo "registry-dev: $*" >&2; exit 1; }

version=2.6.13.Final # the last that runs on Java 17
cache=${LEAT_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat-kafka}
home=$cache/apicurio-$version

# The folder appears by one rename, so a cut-off download never looks complete.
fetch() {
  [ -d "$home" ] && return
  command -v mvn >/dev/null || die "mvn is not on the PATH: Maven is needed once, to fetch Apicurio Registry $version"
  mkdir -p "$cache"
  local tmp; tmp=$(mktemp -d "$cache/.fetch.XXXXXX")
  echo "registry-dev: fetching Apicurio Registry $version (142 MB, once)" >&2
  if ! mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack \
    -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" -DoutputDirectory="$tmp" >"$tmp.log" 2>&1; then
    rm -rf "$tmp"; die "fetching it failed: $(grep -m1 ERROR "$tmp.log" | cut -c1-300) (all of it: $tmp.log)"
  fi
  rm -f "$tmp.log"
  if [ -d "$home" ]; then rm -rf "$tmp"; else mv "$tmp" "$home" || die "cannot write $home"; fi # Another start may have been first.
}

case ${1:-} in
fetch) fetch ;;
run)
  command -v java >/dev/null || die "java is not on the PATH: a Java 17 (or newer) runtime is needed"
  fetch
  java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="${2:-0}" \
    -jar "$home/apicurio-registry-app-$version-runner.jar" 2>&1 </dev/null &
  pid=$!
  trap 'kill -9 "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true' EXIT
  cat >/dev/null
  ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
