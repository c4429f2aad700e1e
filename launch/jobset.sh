#!/usr/bin/env bash
# Trains on GPU nodes of a Kubernetes cluster that has JobSet (jobset.sigs.k8s.io), from an image of this repository.
#
#   launch/jobset.sh --name NAME --nodes N --gpus G --image IMAGE [OPTIONS] [--dry-run] -- ARGUMENTS OF cc_jax.main
#   launch/jobset.sh --name NAME --delete [--namespace NAMESPACE] [--dry-run]
#
#   --name NAME           the JobSet
#   --nodes N             how many pods, each a process with a node's GPUs
#   --gpus G              GPUs of each pod
#   --image IMAGE         made by launch/Dockerfile:
#                         docker build -f launch/Dockerfile --build-arg EXTRA=cuda -t IMAGE . && docker push IMAGE
#   --restarts N          how often a run that failed starts again (10); one whose node is drained always does
#   --namespace NAMESPACE without it, kubectl's own
#   --select KEY=VALUE    only on nodes with this label; may be given again
#   --claim CLAIM         this persistent volume claim is /data in all pods, read and written by many
#   --delete              deletes the JobSet and does nothing else
#   --dry-run             prints the manifest, or the command, and runs none
#   --help                prints this
#
# Pods share no disk but a claim's, so --workdir belongs in a bucket or in /data; then a run that was cut off resumes.
# Logs: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME
#
#   launch/jobset.sh --name cc --nodes 4 --gpus 8 --image REGISTRY/cc_jax --claim shared -- \
#     --config configs/siglip_b16_cc.py:data=/data/cc12m --workdir /data/runs/b16 --config.optim.lr=5e-4

set -euo pipefail

fail() { printf 'jobset.sh: %s\n' "$1" >&2; exit 2; }

name="" nodes="" gpus="" image="" restarts=10 namespace="" claim="" delete=false dry_run=false labels=()
while (($#)); do
  case $1 in
    --name=* | --nodes=* | --gpus=* | --image=* | --restarts=* | --namespace=* | --select=* | --claim=*)
      set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --select)
      [[ ${2-} == [!-]*=* ]] || fail "--select needs KEY=VALUE, found '${2-}'."
      labels+=("$2"); shift 2 ;;
    --name | --nodes | --gpus | --image | --restarts | --namespace | --claim)
      [[ -n ${2-} && ${2-} != --* ]] || fail "$1 needs a value, found '${2-}' (see --help)."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --delete) delete=true; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --) shift; break ;;
    *) fail "unknown option '$1'; arguments of cc_jax.main follow a --, and before it these are allowed:
  --name, --nodes, --gpus, --image, --restarts, --namespace, --select, --claim, --delete, --dry-run, --help" ;;
  esac
done

[[ -n $name ]] || fail "--name is missing: the JobSet, for example --name cc."
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "--name is '$name'; allowed: up to 40 of a-z, 0-9 and inner -, a letter first."
if $delete; then
  (($# == 0)) || fail "--delete starts no run, but arguments for one follow the --: '$1'; give one or the other."
else
  for option in nodes gpus; do
    [[ -n ${!option} ]] || fail "--$option is missing, for example --nodes 4 --gpus 8."
    [[ ${!option} =~ ^[1-9][0-9]*$ ]] || fail "--$option is '${!option}'; allowed: a whole number from 1."
  done
  [[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts is '$restarts'; allowed: a whole number."
  [[ -n $image ]] || fail "--image is missing: the image to run; --help shows how it is made."
  (($#)) || fail "nothing to run; give the arguments of cc_jax.main after a --, for example
  -- --config configs/siglip_b16_cc.py --workdir gs://BUCKET/run"
fi
$dry_run || command -v kubectl > /dev/null ||
  fail "kubectl is not on PATH; install it: https://kubernetes.io/docs/tasks/tools"

yaml() {  # a text as YAML's double-quoted string, with the characters that YAML would read as others escaped
  local LC_ALL=C text=${1//\\/\\\\} code bytes
  text=${text//\"/\\\"}
  for code in {1..31} 127 {128..159}; do
    printf -v bytes '\\x%02x' "$code"
    if ((code > 127)); then bytes="\\xc2$bytes"; fi
    printf -v bytes '%b' "$bytes"
    printf -v code '\\u%04x' "$code"
    text=${text//"$bytes"/"$code"}
  done
  text=${text//$'\xe2\x80\xa8'/'\u2028'} text=${text//$'\xe2\x80\xa9'/'\u2029'} text=${text//$'\xef\xbb\xbf'/'\ufeff'}
  printf '"%s"' "$text"
}

manifest() {
  local word label
  cat << END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
spec:
  network:  # a headless service, by which the pods find the first
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  failurePolicy:
    maxRestarts: $restarts
    rules:  # a pod whose node is drained is no failure of the run
    - action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: train
    replicas: 1
    template:
      spec:
        completionMode: Indexed
        parallelism: $nodes
        completions: $nodes
        backoffLimit: 0  # all pods start again, or none
        podFailurePolicy:
          rules:
          - action: FailJob
            onPodConditions:
            - type: DisruptionTarget
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            tolerations:
            - key: nvidia.com/gpu
              operator: Exists
END
  if ((${#labels[@]})); then printf '            nodeSelector:\n'; fi
  for label in "${labels[@]}"; do printf '              %s: %s\n' "$(yaml "${label%%=*}")" "$(yaml "${label#*=}")"; done
  cat << END
            containers:
            - name: train
              image: $(yaml "$image")
              env:
              - name: JOBSET_NAME
                value: $name
              - name: REPLICATED_JOB_NAME
                value: train
              - name: JAX_NUM_PROCESSES
                value: "$nodes"
              resources:
                limits:
                  nvidia.com/gpu: $gpus
              volumeMounts:
              - name: memory
                mountPath: /dev/shm
END
  if [[ -n $claim ]]; then printf '              - name: claim\n                mountPath: /data\n'; fi
  printf '              command:\n'
  for word in launch/stoppable.sh python -u -m cc_jax.main --distributed "$@"; do
    printf '              - %s\n' "$(yaml "${word//\$/\$\$}")"  # Kubernetes makes $$ a $, and $(NAME) a variable's value
  done
  cat << END
            volumes:
            - name: memory  # NCCL's, and more than a container's own 64 MiB
              emptyDir:
                medium: Memory
END
  if [[ -n $claim ]]; then
    printf '            - name: claim\n              persistentVolumeClaim:\n'
    printf '                claimName: %s\n' "$(yaml "$claim")"
  fi
}

kubectl=(kubectl)
if [[ -n $namespace ]]; then kubectl+=(--namespace="$namespace"); fi
if $delete; then
  printf '%q' "${kubectl[0]}"; printf ' %q' "${kubectl[@]:1}" delete jobset "$name"; printf '\n'
  $dry_run || "${kubectl[@]}" delete jobset "$name"
elif $dry_run; then
  manifest "$@"
else
  manifest "$@" | "${kubectl[@]}" create -f -
fi
