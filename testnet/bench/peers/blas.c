// A peer of tensor's kernels: multiplies matrices with a shared library, for
// `kith bench kernels`, which compiles this where it runs.
//
//   blas cblas|dnnl LIBRARY
//
// Writes "ready" and a line feed, then for each line "M N K TIMES" that it reads
// the seconds that so many products C = A B took, B stored as N x K.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*cblas_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef int (*dnnl_fn)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *, int64_t);

static cblas_fn cblas;
static dnnl_fn dnnl;

static void multiply(int m, int n, int k, const float *a, const float *b, float *c) {
	if (cblas)
		cblas(101, 111, 112, m, n, k, 1, a, k, b, k, 0, c, n);
	else if (dnnl('N', 'T', m, n, k, 1, a, k, b, k, 0, c, n) != 0) {
		fprintf(stderr, "dnnl_sgemm failed\n");
		exit(1);
	}
}

static float *numbers(size_t n) {
	float *p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
	if (!p) {
		fprintf(stderr, "no memory for %zu floats\n", n);
		exit(1);
	}
	for (size_t i = 0; i < n; i++)
		p[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
	return p;
}

int main(int argc, char **argv) {
	if (argc != 3) {
		fprintf(stderr, "usage: blas cblas|dnnl LIBRARY\n");
		return 2;
	}
	void *lib = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		return 3;
	}
	if (!strcmp(argv[1], "cblas"))
		cblas = (cblas_fn)dlsym(lib, "cblas_sgemm");
	else
		dnnl = (dnnl_fn)dlsym(lib, "dnnl_sgemm");
	if (!cblas && !dnnl) {
		fprintf(stderr, "%s has no sgemm\n", argv[2]);
		return 3;
	}
	puts("ready");
	fflush(stdout);
	int m, n, k, times;
	while (scanf("%d %d %d %d", &m, &n, &k, &times) == 4) {
		float *a = numbers((size_t)m * k), *b = numbers((size_t)n * k), *c = numbers((size_t)m * n);
		multiply(m, n, k, a, b, c);
		struct timespec t0, t1;
		clock_gettime(CLOCK_MONOTONIC, &t0);
		for (int i = 0; i < times; i++)
			multiply(m, n, k, a, b, c);
		clock_gettime(CLOCK_MONOTONIC, &t1);
		printf("%.9f\n", (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
		fflush(stdout);
		free(a), free(b), free(c);
	}
	return 0;
}
