"""What the package asks of the machine: files, cores, threads, devices."""
