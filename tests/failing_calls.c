/* Calls of the C library that change something below a folder, of which the n-th fails, or all from the n-th on.

   To be preloaded: it sees what no hook in Python does, the calls of every library. `arm` begins to count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char below[PATH_MAX];
static long fail_at, calls;
static int number, stays;

void arm(const char *folder, long at, int error, int from_then_on)
{
    snprintf(below, sizeof below, "%s/", folder);
    fail_at = at, number = error, stays = from_then_on, calls = 0;
}

long counted(void) { return calls; }

static int fails(const char *path)
{
    if (!*below || strncmp(path, below, strlen(below)))
        return 0;
    long call = __sync_add_and_fetch(&calls, 1);
    if (!fail_at || !(call == fail_at || (stays && call > fail_at)))
        return 0;
    errno = number;
    return 1;
}

static int open_fails(int descriptor)
{
    char link[64], path[PATH_MAX];
    if (!*below)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(path);
}

#define CALL(type, name, parameters, arguments, wrong)              \
    type name parameters                                            \
    {                                                               \
        static type(*next) parameters;                              \
        if (!next)                                                  \
            next = (type(*) parameters)dlsym(RTLD_NEXT, #name);     \
        return (wrong) ? -1 : next arguments;                       \
    }

CALL(ssize_t, write, (int to, const void *bytes, size_t count), (to, bytes, count), open_fails(to))
CALL(ssize_t, pwrite, (int to, const void *bytes, size_t count, off_t at), (to, bytes, count, at), open_fails(to))
CALL(ssize_t, pwrite64, (int to, const void *bytes, size_t count, off64_t at), (to, bytes, count, at), open_fails(to))
CALL(ssize_t, sendfile, (int to, int from, off_t *at, size_t count), (to, from, at, count), open_fails(to))
CALL(ssize_t, sendfile64, (int to, int from, off64_t *at, size_t count), (to, from, at, count), open_fails(to))
CALL(int, fsync, (int file), (file), open_fails(file))
CALL(int, fdatasync, (int file), (file), open_fails(file))
CALL(int, ftruncate, (int file, off_t length), (file, length), open_fails(file))
CALL(int, ftruncate64, (int file, off64_t length), (file, length), open_fails(file))
CALL(int, rename, (const char *from, const char *to), (from, to), fails(to))
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), fails(path))

#define OPEN(name, before, first)                                               \
    int name(before const char *path, int flags, ...)                           \
    {                                                                           \
        static int (*next)(before const char *, int, ...);                      \
        va_list rest;                                                           \
        va_start(rest, flags);                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                           \
        if (!next)                                                              \
            next = (int (*)(before const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) && fails(path))               \
            return -1;                                                          \
        return next(first path, flags, mode);                                   \
    }

#define NOTHING
#define FOLDER int folder,
#define ITS folder,
OPEN(open, NOTHING, NOTHING)
OPEN(open64, NOTHING, NOTHING)
OPEN(openat, FOLDER, ITS)
OPEN(openat64, FOLDER, ITS)
