/*
 * Makes the n-th call that changes a file fail, underneath SQLite.
 *
 * Preloaded into a process, this stands between SQLite and libc. Nothing fails until
 * faults_arm() names a folder; from then on every call that would change a file in it is counted,
 * and the n-th (or each from the n-th on) fails with the error asked for. What comes back up is
 * then SQLite's own answer to a bad disk, not a guess of ours.
 *
 * For one thread only: nothing here is locked.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX]; /* empty while disarmed */
static long nth, seen, fired;
static int error, sticky;
static char first[PATH_MAX + 32]; /* the first call that failed, for people */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void faults_arm(const char *in, long n, int with, int stays)
{
    snprintf(folder, sizeof folder, "%s", in);
    nth = n;
    error = with;
    sticky = stays;
    seen = fired = 0;
    first[0] = '\0';
}

/* How many calls failed since faults_arm(). */
long faults_disarm(void)
{
    folder[0] = '\0';
    return fired;
}

const char *faults_first(void)
{
    return first;
}

static int inside(const char *path)
{
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && path[length] == '/';
}

static int strikes(const char *call, const char *path)
{
    if (!inside(path))
        return 0;
    seen++;
    if (sticky ? seen < nth : seen != nth)
        return 0;
    if (!fired++)
        snprintf(first, sizeof first, "%s %s", call, strrchr(path, '/') + 1);
    errno = error;
    return 1;
}

/* The file's path; empty while disarmed, so that an unarmed process pays next to nothing. */
static const char *path_of(int fd)
{
    static char path[PATH_MAX];
    char link[32];
    ssize_t length;
    path[0] = '\0';
    if (folder[0]) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = '\0';
    }
    return path;
}

/* A disk that fills up or breaks in the middle of a write keeps the first part of it. */
static size_t torn(size_t length)
{
    return error == EROFS ? 0 : length / 2;
}

ssize_t write(int fd, const void *from, size_t length)
{
    if (!strikes("write", path_of(fd)))
        return NEXT(write)(fd, from, length);
    NEXT(write)(fd, from, torn(length));
    errno = error;
    return -1;
}

#define WRITES_AT(name, offset_t)                                        \
    ssize_t name(int fd, const void *from, size_t length, offset_t at)   \
    {                                                                    \
        if (!strikes("write", path_of(fd)))                              \
            return NEXT(name)(fd, from, length, at);                     \
        NEXT(name)(fd, from, torn(length), at);                          \
        errno = error;                                                   \
        return -1;                                                       \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

#define CHANGES(name, parameters, arguments)                             \
    int name parameters                                                  \
    {                                                                    \
        return strikes(#name, path_of(fd)) ? -1 : NEXT(name) arguments;  \
    }
CHANGES(ftruncate, (int fd, off_t length), (fd, length))
CHANGES(ftruncate64, (int fd, off64_t length), (fd, length))
CHANGES(fallocate, (int fd, int mode, off_t at, off_t length), (fd, mode, at, length))
CHANGES(fallocate64, (int fd, int mode, off64_t at, off64_t length), (fd, mode, at, length))

/* These two return the error itself. */
int posix_fallocate(int fd, off_t at, off_t length)
{
    return strikes("fallocate", path_of(fd)) ? error : NEXT(posix_fallocate)(fd, at, length);
}

int posix_fallocate64(int fd, off64_t at, off64_t length)
{
    return strikes("fallocate", path_of(fd)) ? error : NEXT(posix_fallocate64)(fd, at, length);
}

/*
 * Counted but never carried out: a process may die here, the machine does not, and thousands of
 * cases would otherwise spend most of their time waiting for the disk.
 */
#define FLUSHES(name)                                                    \
    int name(int fd)                                                     \
    {                                                                    \
        return strikes(#name, path_of(fd)) ? -1 : 0;                     \
    }
FLUSHES(fsync)
FLUSHES(fdatasync)

int unlink(const char *path)
{
    return strikes("unlink", path) ? -1 : NEXT(unlink)(path);
}

/* Opening changes something when it makes the file; and what is read-only refuses any writer. */
static int open_strikes(const char *path, int flags)
{
    int makes = flags & O_CREAT && access(path, F_OK);
    int refused = error == EROFS && (flags & O_ACCMODE) != O_RDONLY;
    return (makes || refused) && strikes(makes ? "create" : "open", path);
}

#define OPENS(name, parameters, path, arguments)                         \
    int name parameters                                                  \
    {                                                                    \
        int mode, kept = errno;                                          \
        va_list more;                                                    \
        va_start(more, flags);                                           \
        mode = flags & O_CREAT ? va_arg(more, int) : 0;                  \
        va_end(more);                                                    \
        if (folder[0] && open_strikes(path, flags))                      \
            return -1;                                                   \
        errno = kept;                                                    \
        return NEXT(name) arguments;                                     \
    }
OPENS(open, (const char *path, int flags, ...), path, (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), path, (path, flags, mode))
OPENS(openat, (int at, const char *path, int flags, ...), path, (at, path, flags, mode))
OPENS(openat64, (int at, const char *path, int flags, ...), path, (at, path, flags, mode))

/* A disk that was full says so when it is asked how much room there is. */
#define MEASURES(name, result)                                           \
    int name(const char *path, struct result *into)                      \
    {                                                                    \
        int answer = NEXT(name)(path, into);                             \
        if (folder[0] && fired && error == ENOSPC)                       \
            into->f_bavail = into->f_bfree = into->f_favail = 0;                          \
        return answer;                                                   \
    }
MEASURES(statvfs, statvfs)
MEASURES(statvfs64, statvfs64)
