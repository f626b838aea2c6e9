# The images of the node, without a registry and without a build tool. Sourced by run.sh.
#
# One file system for all: Debian 12 with Postgres 15 and git, made by debootstrap once per machine,
# and our program as a second layer. The user `postgres` has the number that it has in the image
# `postgres`, because that is what pods of databases run as. Leaves loading them to node.sh.

base=${XDG_CACHE_HOME:-$HOME/.cache}/pgitops/cluster-bookworm.tar

make_base() {
  [ -f "$base" ] && return
  local root=$folder/root
  say 'making the file system of the images (two minutes, once per machine)'
  debootstrap --variant=minbase --include=ca-certificates,git,postgresql-15,tzdata \
    bookworm "$root" >"$folder/debootstrap.log" 2>&1 ||
    die "debootstrap failed: $(tail -n 3 "$folder/debootstrap.log")"
  chroot "$root" groupmod -g 999 postgres
  chroot "$root" usermod -u 999 -g 999 postgres
  chroot "$root" chown -R postgres:postgres /var/lib/postgresql
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/{doc,man}
  mkdir -p "$(dirname "$base")"
  tar -C "$root" -cf "$base.new" .
  mv "$base.new" "$base"
  rm -rf "$root"
}

# image ARCHIVE CONFIGURATION LAYER… -- NAME…: a docker archive, as `containerd` imports it.
image() {
  local archive=$1 configuration=$2 work layers=() digests=() names=()
  shift 2
  work=$(mktemp -d -p "$folder")
  while [ "$1" != -- ]; do
    local digest
    digest=$(sha256sum <"$1")
    digest=${digest%% *}
    ln "$1" "$work/$digest.tar" 2>/dev/null || cp "$1" "$work/$digest.tar"
    layers+=("$digest.tar") digests+=("sha256:$digest")
    shift
  done
  shift
  names=("$@")
  jq -n --argjson config "$configuration" --arg architecture "$(dpkg --print-architecture)" \
    '{architecture: $architecture, os: "linux", config: $config,
      rootfs: {type: "layers", diff_ids: $ARGS.positional}}' \
    --args "${digests[@]}" >"$work/config.json"
  jq -n --argjson layers "$(jq -nc '$ARGS.positional' --args "${layers[@]}")" \
    '[{Config: "config.json", RepoTags: $ARGS.positional, Layers: $layers}]' \
    --args "${names[@]}" >"$work/manifest.json"
  tar -C "$work" -cf "$archive" config.json manifest.json "${layers[@]}"
  rm -rf "$work"
}

# What the manifests of deploy/ and the examples name, and the one that holds a pod's network.
make_images() {
  local path='["PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]'
  mkdir "$folder/program"
  install -m 755 "$program" "$folder/program/pgitops"
  tar -C "$folder/program" --owner=0 --group=0 -cf "$folder/program.tar" pgitops
  image "$folder/servers.tar" "{\"Env\": $path, \"Cmd\": [\"sleep\", \"infinity\"]}" "$base" \
    -- docker.io/library/postgres:15 registry.local/pause:1
  image "$folder/pgitops.tar" \
    "{\"Env\": $path, \"User\": \"65532:65532\", \"Entrypoint\": [\"/pgitops\"]}" \
    "$base" "$folder/program.tar" -- docker.io/library/pgitops:0.1.0
  rm -rf "$folder/program" "$folder/program.tar"
}
