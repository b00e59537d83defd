/* For LD_PRELOAD: writes down, in order, what a process does to the files under POWER_DIR, and fails calls on demand.
 *
 *   POWER_DIR     absolute path; only what lies below it (and the directory itself) is looked at
 *   POWER_LOG     file that the records are appended to; none: nothing is recorded
 *   POWER_NOSYNC  set: fsync and fdatasync do nothing and succeed, and are not recorded (a disk that lies)
 *   POWER_FAIL    "KIND,N,ERRNO,MODE": the N-th call of KIND (write, sync, meta, any) fails with ERRNO;
 *                 MODE once, sticky (all later ones too), short (a write that writes half and says so), or kill
 *   POWER_SWITCH  directory; the process maps its own file there, named by its pid, and obeys at every call what somebody writes
 *                 into it while it runs: "KINDS,1,ERRNO,MODE", KINDS as "write+meta"; empty: nothing fails. MODE slow: nothing fails,
 *                 each call takes ERRNO milliseconds longer. The last byte of the first 64 counts the calls that this met. A process
 *                 begins with what is in the file "next"
 *
 * A record: the head below, then `first` bytes of a path, then `second` bytes of a path or of data. One lock around call and
 * record: the order of the records is the order of the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
#define REAL(name) ((__typeof__(&name)) real(&real_##name, #name))
#define SLOT(name) static void *real_##name;

struct head { uint8_t kind, pad[3]; int32_t fd; int64_t offset, size; uint32_t first, second; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char tracked[FDS];
static const char *dir;
static size_t dir_size;
static int log_fd = -1, no_sync, fail_errno;
static long fail_at, fail_count;
static char fail_kind[16], fail_mode[16];
static volatile char *live;

static void *real(void **slot, const char *name) {
    if (!*slot) *slot = dlsym(RTLD_NEXT, name);
    return *slot;
}

#define LIVE_SIZE 64

static void map_switch(const char *place) {
    char name[4096], text[LIVE_SIZE] = "";
    int fd, next;
    snprintf(name, sizeof name, "%s/next", place);
    next = (int) syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    if (next >= 0) { if (syscall(SYS_read, next, text, LIVE_SIZE - 1) < 0) abort(); syscall(SYS_close, next); }
    snprintf(name, sizeof name, "%s/%d", place, (int) getpid());
    fd = (int) syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, text, LIVE_SIZE) != LIVE_SIZE) return;
    live = (volatile char *) syscall(SYS_mmap, NULL, LIVE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (live == MAP_FAILED) live = NULL;
    syscall(SYS_close, fd);
}

__attribute__((constructor)) static void start(void) {
    const char *log = getenv("POWER_LOG"), *fail = getenv("POWER_FAIL"), *place = getenv("POWER_SWITCH");
    dir = getenv("POWER_DIR");
    if (!dir) return;
    dir_size = strlen(dir);
    no_sync = getenv("POWER_NOSYNC") != NULL;
    if (log) log_fd = (int) syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fail && sscanf(fail, "%15[^,],%ld,%d,%15s", fail_kind, &fail_at, &fail_errno, fail_mode) != 4) abort();
    if (place) map_switch(place);
}

static int inside(const char *path) {
    return dir && path && !strncmp(path, dir, dir_size) && (path[dir_size] == '/' || !path[dir_size]);
}
static int is_tracked(int fd) { return dir && fd >= 0 && fd < FDS && tracked[fd]; }

static void note(char kind, int fd, int64_t offset, int64_t size, const char *path, const void *data, size_t data_size) {
    struct head head = {.kind = (uint8_t) kind, .fd = fd, .offset = offset, .size = size,
                        .first = path ? (uint32_t) strlen(path) : 0, .second = (uint32_t) data_size};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *) path, head.first}, {(void *) data, data_size}};
    if (log_fd < 0) return;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long) (sizeof head + head.first + data_size)) abort();
}

static int fails_live(const char *kind) {
    char kinds[16], mode[16];
    int error;
    if (sscanf((const char *) live, "%15[^,],1,%d,%15s", kinds, &error, mode) != 3 || !strstr(kinds, kind)) return 0;
    live[LIVE_SIZE - 1]++;
    if (!strcmp(mode, "slow")) { usleep((useconds_t) error * 1000); return 0; }
    if (strcmp(mode, "sticky")) live[0] = 0;
    if (!strcmp(mode, "kill")) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    if (!strcmp(mode, "short")) return strcmp(kind, "write") ? 0 : 2;
    errno = error;
    return 1;
}

/* 0: go on; 1: fail with errno set; 2: write half */
static int fails(const char *kind) {
    long number;
    if (live && live[0]) return fails_live(kind);
    if (!fail_at || (strcmp(fail_kind, "any") && strcmp(fail_kind, kind))) return 0;
    number = ++fail_count;
    if (number < fail_at || (number > fail_at && strcmp(fail_mode, "sticky"))) return 0;
    if (number == fail_at) note('f', 0, number, fail_errno, kind, NULL, 0);
    if (!strcmp(fail_mode, "kill")) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    if (!strcmp(fail_mode, "short")) return strcmp(kind, "write") ? 0 : 2;
    errno = fail_errno;
    return 1;
}

#define ENTER pthread_mutex_lock(&lock)
#define LEAVE do { int kept = errno; pthread_mutex_unlock(&lock); errno = kept; } while (0)

/* For the tests: a mark in the record, from the process itself. */
void power_mark(const void *data, size_t size) { ENTER; note('k', -1, 0, 0, NULL, data, size); LEAVE; }
long power_calls(void) { return fail_count; }

/* An abrupt end waits for the call that another thread is in: each call that took effect is in the record. */
void _exit(int status) { if (dir) pthread_mutex_lock(&lock); for (;;) syscall(SYS_exit_group, status); }

static int open_it(int at, const char *path, int flags, mode_t mode) {
    int fd;
    if (!inside(path)) return (int) syscall(SYS_openat, at, path, flags, mode);
    ENTER;
    if ((flags & O_CREAT) && fails("meta")) fd = -1;
    else fd = (int) syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < FDS) { tracked[fd] = 1; note('o', fd, flags, 0, path, NULL, 0); }
    LEAVE;
    return fd;
}
static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }
#define OPEN(name) int name(const char *path, int flags, ...) { va_list list; mode_t mode; \
    va_start(list, flags); mode = mode_of(flags, list); va_end(list); return open_it(AT_FDCWD, path, flags, mode); }
#define OPENAT(name) int name(int at, const char *path, int flags, ...) { va_list list; mode_t mode; \
    va_start(list, flags); mode = mode_of(flags, list); va_end(list); return open_it(at, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
int creat(const char *path, mode_t mode) { return open_it(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

SLOT(close) int close(int fd) {
    int done;
    if (!is_tracked(fd)) return REAL(close)(fd);
    ENTER; tracked[fd] = 0; note('c', fd, 0, 0, NULL, NULL, 0); done = REAL(close)(fd); LEAVE;
    return done;
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t offset, int positioned) {
    ssize_t done;
    int bad;
    ENTER;
    bad = fails("write");
    if (bad == 2 && size > 1) size /= 2;
    if (!positioned) {
        struct stat now;
        offset = lseek(fd, 0, SEEK_CUR);
        if ((fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &now)) offset = now.st_size;
    }
    if (bad == 1) done = -1;
    else done = positioned ? syscall(SYS_pwrite64, fd, data, size, offset) : syscall(SYS_write, fd, data, size);
    if (done > 0) note('w', fd, offset, done, NULL, data, (size_t) done);
    LEAVE;
    return done;
}
ssize_t write(int fd, const void *data, size_t size) {
    return is_tracked(fd) ? write_at(fd, data, size, 0, 0) : syscall(SYS_write, fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return is_tracked(fd) ? write_at(fd, data, size, offset, 1) : syscall(SYS_pwrite64, fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return pwrite(fd, data, size, offset); }
SLOT(writev) ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t all = 0, done;
    if (!is_tracked(fd)) return REAL(writev)(fd, parts, count);
    for (int i = 0; i < count; i++) {
        done = write_at(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
        if (done < 0) return all ? all : -1;
        all += done;
        if ((size_t) done < parts[i].iov_len) break;
    }
    return all;
}

#define SYNC(name) SLOT(name) int name(int fd) { int done; \
    if (!is_tracked(fd)) return REAL(name)(fd); \
    ENTER; if (fails("sync")) done = -1; else if (no_sync) done = 0; \
    else { done = REAL(name)(fd); if (!done) note('s', fd, 0, 0, NULL, NULL, 0); } LEAVE; return done; }
SYNC(fsync) SYNC(fdatasync)

#define TRUNCATE(name) SLOT(name) int name(int fd, off_t size) { int done; \
    if (!is_tracked(fd)) return REAL(name)(fd, size); \
    ENTER; done = fails("meta") ? -1 : REAL(name)(fd, size); if (!done) note('t', fd, 0, size, NULL, NULL, 0); LEAVE; return done; }
TRUNCATE(ftruncate) TRUNCATE(ftruncate64)

#define ALLOCATE(name) SLOT(name) int name(int fd, int mode, off_t offset, off_t size) { int done; \
    if (!is_tracked(fd)) return REAL(name)(fd, mode, offset, size); \
    ENTER; done = fails("meta") ? -1 : REAL(name)(fd, mode, offset, size); \
    if (!done && !(mode & FALLOC_FL_KEEP_SIZE)) { note('a', fd, offset, size, NULL, NULL, 0); } LEAVE; return done; }
ALLOCATE(fallocate) ALLOCATE(fallocate64)

#define TWO(name, kind) SLOT(name) int name(const char *old, const char *new) { int done; \
    if (!inside(old) && !inside(new)) return REAL(name)(old, new); \
    ENTER; done = fails("meta") ? -1 : REAL(name)(old, new); if (!done) note(kind, -1, 0, 0, old, new, strlen(new)); LEAVE; return done; }
TWO(rename, 'r') TWO(link, 'l')

#define ONE(name, kind) SLOT(name) int name(const char *path) { int done; \
    if (!inside(path)) return REAL(name)(path); \
    ENTER; done = fails("meta") ? -1 : REAL(name)(path); if (!done) note(kind, -1, 0, 0, path, NULL, 0); LEAVE; return done; }
ONE(unlink, 'u') ONE(rmdir, 'u')
SLOT(mkdir) int mkdir(const char *path, mode_t mode) {
    int done;
    if (!inside(path)) return REAL(mkdir)(path, mode);
    ENTER; done = fails("meta") ? -1 : REAL(mkdir)(path, mode); if (!done) note('d', -1, 0, 0, path, NULL, 0); LEAVE;
    return done;
}

/* Writes through a mapping would not be seen: noted, so that the reader of the record refuses it. */
#define MAP(name) SLOT(name) void *name(void *at, size_t size, int how, int flags, int fd, off_t offset) { \
    if (is_tracked(fd) && (how & PROT_WRITE) && (flags & MAP_SHARED)) { ENTER; note('m', fd, offset, (int64_t) size, NULL, NULL, 0); LEAVE; } \
    return REAL(name)(at, size, how, flags, fd, offset); }
MAP(mmap) MAP(mmap64)
