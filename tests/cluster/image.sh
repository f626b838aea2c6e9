# The images of the node, without a registry and without a build tool. Sourced by run.sh.
#
# One file system for all: Debian 12 with Postgres 15 and git, made by debootstrap once per machine,
# and our program as a second layer, unless there is an archive with the image that
# deploy/Containerfile makes (containerfile.sh): that one is taken as it is. The user `postgres` has
# the number that it has in the image `postgres`, because that is what pods of databases run as.
# Leaves loading them to node.sh.

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

# layer FILE: puts it into the archive; prints its digest.
layer() {
  local digest
  digest=$(sha256sum <"$1")
  digest=${digest%% *}
  ln "$1" "$archive/$digest.tar" 2>/dev/null || cp "$1" "$archive/$digest.tar"
  echo "$digest"
}

# image CONFIGURATION NAMES DIGEST…: an image of the archive; both are JSON.
image() {
  local configuration=$1 names=$2 file
  shift 2
  file=$(mktemp -p "$archive" --suffix .json)
  jq -n --argjson config "$configuration" --arg architecture "$(dpkg --print-architecture)" \
    '{architecture: $architecture, os: "linux", config: $config,
      rootfs: {type: "layers", diff_ids: $ARGS.positional | map("sha256:" + .)}}' \
    --args "$@" >"$file"
  jq -n --arg file "$(basename "$file")" --argjson names "$names" \
    '{Config: $file, RepoTags: $names, Layers: $ARGS.positional | map(. + ".tar")}' \
    --args "$@" >>"$folder/manifests"
}

# What the manifests of deploy/ and the examples name, and the image that holds a pod's network, in
# a docker archive: containerd imports it, and no registry is needed.
make_images() {
  local archive=$folder/images system own
  local path='["PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]'
  mkdir "$archive"
  system=$(layer "$base")
  image "{\"Env\": $path, \"Cmd\": [\"sleep\", \"infinity\"]}" \
    '["docker.io/library/postgres:15", "registry.local/pause:1"]' "$system"
  if [ -n "$program" ]; then
    mkdir "$folder/program"
    install -m 755 "$program" "$folder/program/pgitops"
    tar -C "$folder/program" --owner=0 --group=0 -cf "$folder/program.tar" pgitops
    own=$(layer "$folder/program.tar")
    image "{\"Env\": $path, \"User\": \"65532:65532\", \"Entrypoint\": [\"/pgitops\"]}" \
      '["docker.io/library/pgitops:0.1.0"]' "$system" "$own"
    rm -r "$folder/program" "$folder/program.tar"
  fi
  jq -s . "$folder/manifests" >"$archive/manifest.json"
  tar -C "$archive" -cf "$folder/images.tar" .
  rm -r "$archive" "$folder/manifests"
}
