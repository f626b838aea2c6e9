# The network policies of deploy/ and the examples, enforced by kube-router: who reaches whom.
# Sourced by run.sh.
# Asks from inside the pods' own networks; every "does not" stands beside a "does" at the same
# listener, so that a listener that is not there proves nothing.

# process POD NAMESPACE: of its container, by which its network is entered.
process() {
  local container
  container=$(kubectl get pod -n "$2" "$1" -o 'jsonpath={.status.containerStatuses[0].containerID}')
  containers tasks ls | awk -v id="${container#containerd://}" '$1 == id { print $2 }'
}

address() { kubectl get pod -n "$2" "$1" -o 'jsonpath={.status.podIP}'; }

# reaches PROCESS ADDRESS PORT: a connection is made, within 3 s: refused and dropped are both no.
reaches() {
  nsenter --target "$1" --net timeout 3 bash -c "exec 3<>/dev/tcp/$2/$3" 2>/dev/null
}

# may FROM PROCESS TO ADDRESS PORT. A rule may follow its pod by a moment.
may() {
  within 20 "$1 reaches $3 at $5" reaches "$2" "$4" "$5"
  printf '   %s -> %s:%s passes\n' "$1" "$3" "$5"
}

# Three times in a row: a single connection may fail for other reasons.
unreached() { ! reaches "$@" && ! reaches "$@" && ! reaches "$@"; }

may_not() {
  within 60 "$1 does not reach $3 at $5" unreached "$2" "$4" "$5"
  printf '   %s -> %s:%s does not\n' "$1" "$3" "$5"
}

# listen PROCESS PORT: in the network of that process, until the run ends.
listen() {
  nsenter --target "$1" --net perl -MIO::Socket::INET -e '
    my $listener = IO::Socket::INET->new(LocalPort => shift, Listen => 5, ReuseAddr => 1) or die $!;
    while (my $caller = $listener->accept) { close $caller }' "$2" >>"$state/listeners.log" 2>&1 &
}

case_network_policies() {
  say 'network policies: what has to pass passes, what need not does not'
  local pods controller controller_at first second_at git git_at
  mapfile -t pods < <(each_pod '{.metadata.name}')
  led=$(leader)
  controller=$(process "${led%%_*}" pgitops-system)
  controller_at=$(address "${led%%_*}" pgitops-system)
  first=$(process "${pods[0]}" demo)
  second_at=$(address "${pods[1]}" demo)
  git=$(process git pgitops-system)
  git_at=$(address git pgitops-system)
  listen "$controller" 9999
  listen "$git" 8743
  the_controllers
  kubectl apply -f "$tree/examples/manifests/network-policy.yaml" >/dev/null
  the_databases
}

# deploy/: the controller's own.
the_controllers() {
  may controller "$controller" 'API server' "${services%.*}.1" 443
  may controller "$controller" database "$second_at" 8743
  may database "$first" database "$second_at" 5432
  may_not controller "$controller" database "$second_at" 5432
  may database "$first" 'another pod' "$git_at" 8743
  may_not controller "$controller" 'another pod' "$git_at" 8743
  may database "$first" controller "$controller_at" 8080
  may controller "$controller" itself "$controller_at" 9999
  may_not database "$first" controller "$controller_at" 9999
  may 'another pod' "$git" database "$second_at" 8743
  may 'another pod' "$git" database "$second_at" 5432
}

# examples/manifests/network-policy.yaml: the databases'.
the_databases() {
  may_not 'another pod' "$git" database "$second_at" 8743
  may_not 'another pod' "$git" database "$second_at" 5432
  may controller "$controller" database "$second_at" 8743
  may database "$first" database "$second_at" 8743
  may database "$first" database "$second_at" 5432
}
