"""
A clock that is off, for one program only.

libfaketime would be the tool; with it Python's sleep fails or never ends. So a few lines of C,
which move the time of day and leave the monotonic clock alone.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) {
    const char *path = getenv("CLOCK_FILE");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    long seconds = 0;
    if (file != NULL) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) *(void **) &real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (failed == 0 && clock == CLOCK_REALTIME) now->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out != NULL) *out = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """The clock of the programs that run in `environment`."""

    def __init__(self, folder: Path) -> None:
        """Build what moves it; skip where there is no compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no clock can be set off without a C compiler: apt-get install gcc")
        self.file, library = folder / "clock", folder / "clock.so"
        self.set(0)
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(command, input=SOURCE, text=True, check=True, timeout=300)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self.file)}

    def set(self, minutes: int) -> None:
        """Let it be so many minutes fast."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{60 * minutes}\n")
        new.replace(self.file)
