#!/usr/bin/env bash
# Runs a command on several ranks, each in a network namespace of its own, behind a link of limited
# rate: several machines on one. Needs root, iproute2 and Open MPI.
#   ranks_on_network.sh RANKS RATE COMMAND...          RATE as tc has it: 100mbit, 1gbit; or none
set -euo pipefail
count=$1 rate=$2
shift 2
name=samebits$$
bridge=sb$$
work=$(mktemp -d)
clean() {
  for ((i = 1; i <= count; ++i)); do ip netns del "$name-$i" 2> /dev/null || true; done
  ip link del "$bridge" 2> /dev/null || true
  rm -rf "$work"
}
trap clean EXIT

net=10.77.$(($$ % 200))
ip link add "$bridge" type bridge
ip addr add "$net.254/24" dev "$bridge"
ip link set "$bridge" up
hosts=()
for ((i = 1; i <= count; ++i)); do
  space=$name-$i
  ip netns add "$space"
  ip link add "sb$$-$i" type veth peer name eth0 netns "$space"
  ip link set "sb$$-$i" master "$bridge" up
  ip -n "$space" addr add "$net.$i/24" dev eth0
  ip -n "$space" link set eth0 up
  ip -n "$space" link set lo up
  if [[ $rate != none ]]; then
    # Both directions; the bucket holds what 0.125 ms let through, at least two packets.
    bits=$(numfmt --from=si "$(sed -E 's/mbit$/M/; s/gbit$/G/' <<< "$rate")")
    burst=$((bits / 64000 > 3200 ? bits / 64000 : 3200))
    ip netns exec "$space" tc qdisc add dev eth0 root tbf rate "$rate" burst "$burst" latency 100ms
    tc qdisc add dev "sb$$-$i" root tbf rate "$rate" burst "$burst" latency 100ms
  fi
  hosts+=("$net.$i")
done
# What mpirun calls in place of ssh: AGENT HOST COMMAND...
cat > "$work/agent" << AGENT
#!/bin/sh
host=\$1
shift
exec ip netns exec $name-\${host##*.} unshare -u sh -c "hostname node\${host##*.}; \$*"
AGENT
chmod +x "$work/agent"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun --mca plm_rsh_agent "$work/agent" --mca plm_rsh_no_tree_spawn 1 --mca pml ob1 \
  --mca btl tcp,self --mca btl_tcp_if_include "$net.0/24" --mca oob_tcp_if_include "$net.0/24" \
  --bind-to none -H "$(IFS=,; echo "${hosts[*]}")" -n "$count" "$@"
