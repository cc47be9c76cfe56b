"""moored-lab: measures and tortures moored; plugs `lab`, `bench` and `torture` into it."""
