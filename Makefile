# make run [VIDEO=clip.mp4]   set up, start the service, analyse the clip (default: a generated sample), stop
# make serve                  set up and keep serving on http://127.0.0.1:8000
# make test | check | docs | bench   tests | ruff and mypy | tables and picture of the README | the CPU benchmarks
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
VIDEO ?= out/sample.mp4
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED := 0
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup run serve test check docs bench
setup: .venv/ready
.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Clipgraph needs Python 3.11 or 3.12; name one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
# bytecode once, here: two dozen processes import it at every start (seen on 2 cores: ready after 48 s instead of 101)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import cv2' || { echo "OpenCV needs system libraries; on Debian: apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

run: setup
	@test -e "$(VIDEO)" || test "$(VIDEO)" != out/sample.mp4 || $(BIN)/python -m tests.clips.sample out/sample.mp4
	$(BIN)/clipgraph run "$(VIDEO)"

serve: setup
	$(BIN)/serve run serve_config.yaml

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m docs.generate

# Two clips through the service and the old way on the first seconds of one, where each analyzer's time goes, the cost of moving
# frames. BLIP-2's captioner is measured on a GPU machine: benchmarks/captioner.py.
bench: setup
	test -e out/sample_720p_30s.mp4 || { mkdir -p out && $(BIN)/python -m benchmarks.clips out sample_720p_30s.mp4; }
	test -e out/sample.mp4 || $(BIN)/python -m tests.clips.sample out/sample.mp4
	$(BIN)/python -m benchmarks.service out/sample_720p_30s.mp4 out/sample.mp4 --baseline --baseline-seconds 4
	$(BIN)/python -m benchmarks.overhead out/sample.mp4
	$(BIN)/python -m benchmarks.one_analyzer --clip out/sample.mp4 --names cut_analysis,eye_tracking,object_detection,text_overlay --batches 1,32
	$(BIN)/python -m benchmarks.data_path 60
	$(BIN)/python -m docs.generate
