/* Preloaded into a process, it counts the calls that change files below one folder, and at one of
   them ends the process, fails, or, of all of them, keeps a log. Nothing happens before `arm`. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, FULL, FAIL }; /* what happens at call `at`; from it on, if FULL */

static char root[PATH_MAX];
static long at, calls;
static int how, journal = -1;
static pthread_mutex_t guard = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

void arm(const char *folder, int what, long call, const char *log) {
    REAL(int, open64, const char *, int, ...);
    snprintf(root, sizeof root, "%s/", folder);
    how = what, at = call, calls = 0;
    journal = *log ? real(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
}

long count(void) { return calls; }

/* Where a file is: of a name in a folder, or, without a name, of an open file. */
static char *place(int fd, const char *name, char *into) {
    char link[64];
    ssize_t length = 0;
    *into = 0;
    if (name && (*name == '/' || fd == AT_FDCWD)) return strncpy(into, name, PATH_MAX - 1);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((length = readlink(link, into, PATH_MAX / 2)) < 0) length = 0;
    into[length] = 0;
    if (name) snprintf(into + length, PATH_MAX / 2, "/%s", name);
    return into;
}

/* Before a call on a file: 0, the error that it fails with, or -1 if half of it is done. */
static int turn(const char *path, int needs_space) {
    if (!*root || strncmp(path, root, strlen(root))) return 0;
    calls++;
    if (how == FULL && calls >= at && needs_space) return ENOSPC;
    if (calls != at) return 0;
    if (how == KILL) kill(getpid(), SIGKILL);
    if (how == TEAR) return -1;
    return how == FAIL ? EIO : 0;
}

static void note(const char *what, const char *path, const char *to, long long offset,
                 long long size, const void *bytes) {
    REAL(ssize_t, write, int, const void *, size_t);
    char line[2 * PATH_MAX + 100];
    if (journal < 0 || strncmp(path, root, strlen(root))) return;
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%lld\t%lld\n", what, path, to, offset, size);
    real(journal, line, length);
    if (bytes) real(journal, bytes, size);
}

static void end(void) { kill(getpid(), SIGKILL); }

/* A call that writes bytes: `half` is the same call with half of them. */
#define WRITES(fd, bytes, size, offset, call, half) \
    char path[PATH_MAX]; \
    pthread_mutex_lock(&guard); \
    int problem = *root ? turn(place(fd, NULL, path), 1) : 0; \
    long long where = *root ? (offset) : 0; \
    ssize_t done = -1; \
    if (problem > 0) errno = problem; \
    else if (problem < 0) { half; end(); } \
    else if ((done = call) > 0 && *root) note("write", path, "", where, done, bytes); \
    pthread_mutex_unlock(&guard); \
    return done

static long long position(int fd) {
    struct stat state;
    if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &state) ? 0 : state.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!*root) return real(fd, bytes, size); /* before anything else: loggers call it too */
    WRITES(fd, bytes, size, position(fd), real(fd, bytes, size), real(fd, bytes, size / 2));
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    WRITES(fd, bytes, size, offset, real(fd, bytes, size, offset),
           real(fd, bytes, size / 2, offset));
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    return pwrite64(fd, bytes, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t total = 0, done;
    for (int i = 0; i < count; i++) {
        if ((done = write(fd, parts[i].iov_base, parts[i].iov_len)) < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

/* Whoever copies files by these falls back to reading and writing. */
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
    if (!*root) return real(to, from, offset, size);
    errno = EINVAL;
    return -1;
}

ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    return sendfile64(to, from, offset, size);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    if (!*root) return real(from, a, to, b, size, flags);
    errno = ENOSYS;
    return -1;
}

/* A call without bytes, whose result is `failed` if it fails. */
#define CHANGES(what, fd, name, to, value, space, failed, call) \
    char path[PATH_MAX]; \
    pthread_mutex_lock(&guard); \
    int problem = *root ? turn(place(fd, name, path), space) : 0, done = failed; \
    if (problem > 0) errno = problem; \
    else if (problem < 0) end(); \
    else if ((done = call) != (failed) && *root) note(what, path, to, 0, value, NULL); \
    pthread_mutex_unlock(&guard)

int fsync(int fd) {
    REAL(int, fsync, int);
    CHANGES("sync", fd, NULL, "", 0, 0, -1, real(fd));
    return done;
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    CHANGES("sync", fd, NULL, "", 0, 0, -1, real(fd));
    return done;
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    CHANGES("size", fd, NULL, "", size, 0, -1, real(fd, size));
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int truncate64(const char *name, off64_t size) {
    REAL(int, truncate64, const char *, off64_t);
    CHANGES("size", AT_FDCWD, name, "", size, 0, -1, real(name, size));
    return done;
}

int truncate(const char *name, off_t size) { return truncate64(name, size); }

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    REAL(int, posix_fallocate64, int, off64_t, off64_t);
    CHANGES("grow", fd, NULL, "", offset + size, 1, EIO, real(fd, offset, size));
    return problem > 0 ? problem : done;
}

int posix_fallocate(int fd, off_t offset, off_t size) {
    return posix_fallocate64(fd, offset, size);
}

int renameat(int folder, const char *name, int other, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    char target[PATH_MAX];
    place(other, to, target);
    CHANGES("rename", folder, name, target, 0, 0, -1, real(folder, name, other, to));
    return done;
}

int rename(const char *name, const char *to) { return renameat(AT_FDCWD, name, AT_FDCWD, to); }

int unlinkat(int folder, const char *name, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    CHANGES("remove", folder, name, "", 0, 0, -1, real(folder, name, flags));
    return done;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    CHANGES("folder", folder, name, "", 0, 1, -1, real(folder, name, mode));
    return done;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

static int opened(int folder, const char *name, int flags, mode_t mode) {
    REAL(int, openat64, int, const char *, int, ...);
    if (!(flags & (O_CREAT | O_TRUNC))) return real(folder, name, flags, mode);
    CHANGES("open", folder, name, "", flags & O_TRUNC ? 1 : 0, flags & O_CREAT, -1,
            real(folder, name, flags, mode));
    return done;
}

#define MODE \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest)

int open64(const char *name, int flags, ...) { MODE; return opened(AT_FDCWD, name, flags, mode); }
int open(const char *name, int flags, ...) { MODE; return opened(AT_FDCWD, name, flags, mode); }
int openat64(int f, const char *name, int flags, ...) { MODE; return opened(f, name, flags, mode); }
int openat(int f, const char *name, int flags, ...) { MODE; return opened(f, name, flags, mode); }
int creat64(const char *n, mode_t mode) { return open64(n, O_WRONLY | O_CREAT | O_TRUNC, mode); }
