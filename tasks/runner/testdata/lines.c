/* A program that others' tools compile, to run beside our own: Debian's clang
 * 14, wasi-libc and wasm-ld.
 *
 *   clang --target=wasm32-wasi -O2 -Wl,--strip-all -o lines.wasm lines.c
 *
 * It counts the lines of its standard input and of the file that its argument
 * names, makes a small tree in /out, and tells what it found there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long count(FILE *f) {
	long n = 0;
	int c;
	while ((c = fgetc(f)) != EOF)
		n += c == '\n';
	return n;
}

static void put(const char *path, const char *mode, const char *text) {
	FILE *f = fopen(path, mode);
	if (!f || fputs(text, f) == EOF || fclose(f)) {
		perror(path);
		exit(4);
	}
}

static void list(const char *path) {
	DIR *d = opendir(path);
	struct dirent *e;
	struct stat st;
	char full[512];
	if (!d) {
		perror(path);
		exit(5);
	}
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(full, sizeof full, "%s/%s", path, e->d_name);
			if (stat(full, &st)) {
				perror(full);
				exit(6);
			}
			printf("%s%s %ld %ld\n", full, S_ISDIR(st.st_mode) ? "/" : "", (long)(S_ISDIR(st.st_mode) ? 0 : st.st_size), (long)st.st_mtime);
		}
	closedir(d);
}

static const char *result(int rc) { return rc ? strerror(errno) : "ok"; }

int main(int argc, char **argv) {
	char buf[64];
	struct timespec nap = {3600, 0};
	printf("stdin %ld\n", count(stdin));
	if (argc > 1) {
		FILE *f = fopen(argv[1], "r");
		if (!f) {
			perror(argv[1]);
			return 3;
		}
		printf("%s %ld\n", argv[1], count(f));
		printf("unlink %s\n", result(unlink(argv[1])));
	}
	printf("task %s\n", getenv("KITH_TASK"));
	mkdir("/out/b", 0700);
	mkdir("/out/a", 0700);
	put("/out/b/two", "w", "22");
	put("/out/b/two", "a", "333");
	put("/out/gone", "w", "x");
	unlink("/out/gone");
	put("/out/old", "w", "moved");
	rename("/out/old", "/out/a/new");
	printf("link %s\n", result(symlink("../etc", "/out/link")));
	printf("rmdir %s\n", result(rmdir("/out/a")));
	printf("climb %s\n", open("/out/../../etc/passwd", O_RDONLY) < 0 ? "refused" : "succeeded");
	list("/out");
	list("/out/a");
	list("/out/b");
	int fd = open("/out/b/two", O_RDWR);
	if (fd < 0 || lseek(fd, -2, SEEK_END) != 3 || read(fd, buf, sizeof buf) != 2 || ftruncate(fd, 4) || close(fd))
		return 7;
	time_t before = time(NULL);
	nanosleep(&nap, NULL);
	printf("slept %ld\n", (long)(time(NULL) - before));
	fprintf(stderr, "done\n");
	return 0;
}
