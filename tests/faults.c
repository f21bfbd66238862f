/*
 * Makes the n-th call that changes a file fail, underneath SQLite, or kills the process there.
 *
 * Preloaded into a process, this stands between SQLite and libc. Nothing fails until
 * faults_arm() names a folder; from then on every call that would change a file in it is counted,
 * and the n-th (or each from the n-th on) fails with the error asked for. What comes back up is
 * then SQLite's own answer to a bad disk, not a guess of ours.
 *
 * After faults_doom() the process dies at the n-th call instead, as of kill -9: before it, after
 * it, or halfway through what it writes.
 *
 * After faults_hurry() its clock jumps where it would sleep: a process that waits for nothing but
 * time waits no longer. How far its clock is ahead of the machine's stands in a file, so that
 * whoever lives after it, or beside it, can have the same time.
 *
 * For one thread only: nothing here is locked.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum moment { NEVER, BEFORE, HALFWAY, AFTER };

static char folder[PATH_MAX]; /* empty while disarmed */
static long nth, seen, fired;
static int error, sticky;
static char first[PATH_MAX + 32]; /* the first call that failed, for people */
static enum moment deadly;        /* NEVER where calls fail rather than kill */
static int every;                 /* writes count for a kill, too */
static int dying;                 /* it ends when the call in hand is done */
static int told = -1;             /* where each call that counts is named */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void faults_arm(const char *in, long n, int with, int stays)
{
    snprintf(folder, sizeof folder, "%s", in);
    nth = n;
    error = with;
    sticky = stays;
    seen = fired = dying = 0;
    deadly = NEVER;
    first[0] = '\0';
}

/*
 * Ends the process at the n-th call. Unless `all` of those that change a file are meant, those
 * count that make something durable or give it its name or take it away.
 */
void faults_doom(const char *in, long n, int when, int all)
{
    faults_arm(in, n, 0, 0);
    deadly = when;
    every = all;
}

/* Names each call that counts, such as `rename feed.xml`, a line each. */
void faults_tell(int fd)
{
    told = fd;
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

static void die(void)
{
    kill(getpid(), SIGKILL);
}

static int is_a_boundary(const char *call)
{
    static const char *const those[] = {"fsync", "fdatasync", "rename", "unlink", "mkdir"};
    for (size_t i = 0; i < sizeof those / sizeof *those; i++)
        if (!strcmp(call, those[i]))
            return 1;
    return 0;
}

/* Whether the call is to fail; of a doomed process, whether it is to stop halfway. */
static int strikes(const char *call, const char *path)
{
    if (!inside(path) || (deadly && !every && !is_a_boundary(call)))
        return 0;
    seen++;
    if (told >= 0)
        dprintf(told, "%s %s\n", call, strrchr(path, '/') + 1);
    if (deadly) {
        if (seen == nth && deadly == BEFORE)
            die();
        dying = seen == nth;
        return dying && deadly == HALFWAY;
    }
    if (sticky ? seen < nth : seen != nth)
        return 0;
    if (!fired++)
        snprintf(first, sizeof first, "%s %s", call, strrchr(path, '/') + 1);
    errno = error;
    return 1;
}

/* What a call answered, where the process outlives it. */
static ssize_t outlived(ssize_t answer)
{
    if (dying)
        die();
    return answer;
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
        return outlived(NEXT(write)(fd, from, length));
    outlived(NEXT(write)(fd, from, torn(length)));
    errno = error;
    return -1;
}

#define WRITES_AT(name, offset_t)                                        \
    ssize_t name(int fd, const void *from, size_t length, offset_t at)   \
    {                                                                    \
        if (!strikes("write", path_of(fd)))                              \
            return outlived(NEXT(name)(fd, from, length, at));           \
        outlived(NEXT(name)(fd, from, torn(length), at));                \
        errno = error;                                                   \
        return -1;                                                       \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

#define CHANGES(name, parameters, arguments)                             \
    int name parameters                                                  \
    {                                                                    \
        return strikes(#name, path_of(fd)) ? -1                          \
                                           : outlived(NEXT(name) arguments);\
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
        return strikes(#name, path_of(fd)) ? -1 : outlived(0);           \
    }
FLUSHES(fsync)
FLUSHES(fdatasync)

int unlink(const char *path)
{
    return strikes("unlink", path) ? -1 : outlived(NEXT(unlink)(path));
}

int rename(const char *from, const char *to)
{
    return strikes("rename", to) ? -1 : outlived(NEXT(rename)(from, to));
}

int mkdir(const char *path, mode_t mode)
{
    return strikes("mkdir", path) ? -1 : outlived(NEXT(mkdir)(path, mode));
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
        int opened = NEXT(name) arguments;                               \
        kept = errno;                                                    \
        outlived(opened);                                                \
        errno = kept;                                                    \
        return opened;                                                   \
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

/*
 * Time. Sleeping is told from waiting by what the event loop watches: where that is nothing but
 * the pipe it wakes itself up by, and there is no thread to do so, only time can end the wait.
 */

static volatile int64_t *ahead_ns; /* shared with who else maps the file; NULL: not hurried */
static int watched;                /* descriptors in the process's one event loop */

void faults_hurry(const char *clock_file)
{
    int fd = NEXT(open)(clock_file, O_RDWR);
    void *at = mmap(NULL, sizeof *ahead_ns, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || at == MAP_FAILED)
        die(); /* in real time it would sleep for minutes, and nobody knew why */
    close(fd);
    watched = 0;
    ahead_ns = at;
}

/* For a program that knows nothing of this. */
__attribute__((constructor)) static void hurry_from_the_start(void)
{
    if (getenv("FAULTS_CLOCK"))
        faults_hurry(getenv("FAULTS_CLOCK"));
}

int clock_gettime(clockid_t clock, struct timespec *into)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = NEXT(clock_gettime);
    int answer = next(clock, into);
    if (ahead_ns && !answer && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC)) {
        int64_t ns = into->tv_nsec + *ahead_ns % 1000000000;
        into->tv_sec += *ahead_ns / 1000000000 + ns / 1000000000;
        into->tv_nsec = ns % 1000000000;
    }
    return answer;
}

int epoll_ctl(int loop, int does, int fd, struct epoll_event *event)
{
    int answer = NEXT(epoll_ctl)(loop, does, fd, event);
    if (!answer)
        watched += (does == EPOLL_CTL_ADD) - (does == EPOLL_CTL_DEL);
    return answer;
}

static int is_alone(void)
{
    struct stat threads;
    return !stat("/proc/self/task", &threads) && threads.st_nlink == 3;
}

int epoll_wait(int loop, struct epoll_event *events, int max, int timeout_ms)
{
    int sleeps = ahead_ns && watched <= 1 && timeout_ms > 0 && is_alone();
    int ready = NEXT(epoll_wait)(loop, events, max, sleeps ? 0 : timeout_ms);
    if (sleeps && !ready)
        *ahead_ns += timeout_ms * (int64_t)1000000;
    return ready;
}
