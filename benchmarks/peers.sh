#!/bin/sh
# Benchmark (a) beside other libraries, in an environment of their own that borrows ours.
# sh benchmarks/peers.sh [FOLDER] [options of peers.py]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
place=${1:-$(mktemp -d)}
[ $# -gt 0 ] && shift
own="$root/.venv/bin/python"
[ -x "$place/bin/python" ] || "$own" -m venv "$place"
site=$("$place/bin/python" -c 'import site; print(site.getsitepackages()[0])')
"$own" -c 'import site; print(site.getsitepackages()[0])' > "$site/borrowed.pth"
printf '%s\n%s\n' "$root" "$root/hooks" >> "$site/borrowed.pth"
for package in nnsight torchlens captum; do
    "$place/bin/pip" install -q "$package" || echo "$package does not install here: left out"
done
"$place/bin/pip" install -q setuptools wheel pybind11 ninja
"$place/bin/pip" install -q --no-build-isolation --no-deps activationscope ||
    echo "activationscope does not build here: left out"
# torchlens traces the network anew in every call, ten seconds each: half an hour in all.
"$place/bin/python" "$here/peers.py" "$@"
exec "$place/bin/python" "$here/storing.py"
