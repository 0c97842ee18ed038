// SPDX-License-Identifier: Apache-2.0
/* What the loads have in common: ending at a fault, the clock, samples in order. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Seconds of a clock that never goes back. */
static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* For qsort(3), of floats. */
static int by_size(const void *a, const void *b)
{
	float difference = *(const float *)a - *(const float *)b;

	return (difference > 0) - (difference < 0);
}
