/* The floor: a minimal C program that does each kind of work that the benchmark measures.
 *
 * It batches system calls, calls sched_yield(2) a few times before it sleeps in poll(2), and does not
 * parse. It also has the processes at the other end: a generator, a sink and a client.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64,          /* the number of messages in a system call */
    YIELDS = 16,         /* the number of sched_yield(2) before poll(2) */
    SPIN = 50000,        /* nanoseconds that echo-spin spins before poll(2) */
    SLOT = 8 << 20,      /* the buffer of a datagram; pages are allocated when written */
    OUTPUT = 256 << 10,  /* the number of bytes in a write(2) */
    INPUT = 256 << 10,   /* the number of bytes in a read(2) */
    WINDOW = 8,          /* the number of requests under way: they fit in the shortest queues */
    SEQUENCE = 8,        /* offset of the sequence number in a packet: {"seq":"000000000" */
    DIGITS = 9,
    CONTROL = 128,       /* the bytes for a datagram's control data */
    RUN_LIMIT = 600      /* seconds; alarm(2) then ends a run that hangs */
};

static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static char output[OUTPUT];
static size_t pending;
static long spin; /* nanoseconds to spin after the yields */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof name.sun_path) {
        fprintf(stderr, "%s: too long\n", path);
        exit(2);
    }
    strcpy(name.sun_path, path);
    return name;
}

static int open_socket(const char *local, const char *peer)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (local) {
        struct sockaddr_un name = address(local);
        /* An empty name autobinds: the kernel chooses an abstract one. */
        if (bind(fd, (struct sockaddr *)&name, *local ? sizeof name : sizeof(sa_family_t)) < 0)
            die(local);
    }
    if (peer) {
        struct sockaddr_un name = address(peer);
        if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0)
            die(peer);
    }
    return fd;
}

/* Moves the process to a network namespace whose sockets have a queue of this length. */
static void deepen_queues(const char *limit)
{
    int file;
    if (unshare(CLONE_NEWNET) < 0 || (file = open("/proc/sys/net/unix/max_dgram_qlen", O_WRONLY)) < 0)
        die("queue");
    if (write(file, limit, strlen(limit)) < 0)
        die("queue");
    close(file);
}

static void write_all(const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(1, bytes, size);
        if (n < 0)
            die("write");
        bytes += n;
        size -= (size_t)n;
    }
}

static void flush(void)
{
    write_all(output, pending);
    pending = 0;
}

static void write_line(const char *bytes, size_t size)
{
    if (size + 1 > OUTPUT - pending)
        flush();
    if (size + 1 > OUTPUT) {
        write_all(bytes, size);
        size = 0;
    }
    memcpy(output + pending, bytes, size);
    output[pending + size] = '\n';
    pending += size + 1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Handles EAGAIN: yields the processor to the other side a few times, or while it spins, then sleeps until
 * the socket is ready. */
static void await(int fd, short events, int *tries)
{
    static double began;
    if (errno != EAGAIN)
        die("socket");
    if (*tries == 0)
        began = spin > 0 ? now() : 0;
    if ((*tries)++ < YIELDS || (spin > 0 && now() - began < (double)spin)) {
        sched_yield();
        return;
    }
    flush();
    struct pollfd wanted = {.fd = fd, .events = events};
    if (poll(&wanted, 1, -1) < 0)
        die("poll");
    *tries = 0;
}

static unsigned receive_batch(int fd, unsigned max)
{
    for (int tries = 0;;) {
        int n = recvmmsg(fd, messages, max < BATCH ? max : BATCH, MSG_DONTWAIT, NULL);
        if (n > 0)
            return (unsigned)n;
        await(fd, POLLIN, &tries);
    }
}

static void send_batch(int fd, unsigned count)
{
    int tries = 0;
    for (unsigned sent = 0; sent < count;) {
        int n = sendmmsg(fd, messages + sent, count - sent, MSG_DONTWAIT);
        if (n > 0) {
            sent += (unsigned)n;
            tries = 0;
        } else {
            await(fd, POLLOUT, &tries);
        }
    }
}

static void prepare(char *slots, size_t size)
{
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){slots + (size_t)i * size, size};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
}

/* Asks for the time of each datagram and its sender's credentials. They and the sender's address are copied,
 * not read. */
static void ask_for_senders(int fd)
{
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0)
        die("setsockopt");
}

static void make_room_for_senders(void)
{
    static struct sockaddr_un names[BATCH];
    static char control[BATCH][CONTROL] __attribute__((aligned(8)));
    for (int i = 0; i < BATCH; i++) {
        messages[i].msg_hdr.msg_name = &names[i];
        messages[i].msg_hdr.msg_namelen = sizeof names[i];
        messages[i].msg_hdr.msg_control = control[i];
        messages[i].msg_hdr.msg_controllen = sizeof control[i];
    }
}

/* Writes every datagram as a line to stdout. */
static void receive(const char *path, unsigned long count, int senders)
{
    int fd = open_socket(path, NULL);
    if (senders)
        ask_for_senders(fd);
    prepare(map((size_t)BATCH * SLOT), SLOT);
    while (count > 0) {
        if (senders)
            make_room_for_senders();
        unsigned n = receive_batch(fd, count < BATCH ? (unsigned)count : BATCH);
        for (unsigned i = 0; i < n; i++)
            write_line(vectors[i].iov_base, messages[i].msg_len);
        count -= n;
    }
    flush();
    unlink(path);
}

/* Receives numbered datagrams and fails if one is missing, doubled or out of order. */
static void sink(const char *path, unsigned long count)
{
    int fd = open_socket(path, NULL);
    prepare(map((size_t)BATCH * SLOT), SLOT);
    for (unsigned long seen = 0; seen < count;) {
        unsigned n = receive_batch(fd, count - seen < BATCH ? (unsigned)(count - seen) : BATCH);
        for (unsigned i = 0; i < n; i++, seen++) {
            unsigned long number = strtoul((char *)vectors[i].iov_base + SEQUENCE, NULL, 10);
            if (number != seen) {
                fprintf(stderr, "datagram %lu came in place of %lu\n", number, seen);
                exit(1);
            }
        }
    }
    unlink(path);
}

/* Sends every line of stdin as a datagram, from the buffer it was read into. */
static void send_lines(const char *peer)
{
    int fd = open_socket("", peer);
    char *buffer = map(INPUT);
    size_t filled = 0;
    unsigned batch = 0;
    prepare(buffer, 0);
    for (;;) {
        ssize_t n = read(0, buffer + filled, INPUT - filled);
        if (n < 0)
            die("read");
        filled += (size_t)n;
        char *line = buffer, *end = buffer + filled, *newline;
        while ((newline = memchr(line, '\n', (size_t)(end - line))) != NULL || (n == 0 && line < end)) {
            char *stop = newline ? newline : end;
            vectors[batch] = (struct iovec){line, (size_t)(stop - line)};
            if (++batch == BATCH) {
                send_batch(fd, batch);
                batch = 0;
            }
            line = newline ? newline + 1 : end;
        }
        send_batch(fd, batch);
        batch = 0;
        if (n == 0)
            return;
        filled = (size_t)(end - line);
        if (filled == INPUT) {
            fputs("a line longer than the buffer\n", stderr);
            exit(1);
        }
        memmove(buffer, line, filled);
    }
}

static void echo(const char *path)
{
    int fd = open_socket(path, NULL);
    static struct sockaddr_un names[BATCH];
    prepare(map((size_t)BATCH * SLOT), SLOT);
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            messages[i].msg_hdr.msg_name = &names[i];
            messages[i].msg_hdr.msg_namelen = sizeof names[i];
            vectors[i].iov_len = SLOT;
        }
        unsigned n = receive_batch(fd, BATCH);
        for (unsigned i = 0; i < n; i++)
            vectors[i].iov_len = messages[i].msg_len;
        send_batch(fd, n);
    }
}

static void number(char *packet, unsigned long value)
{
    for (int i = DIGITS; i-- > 0; value /= 10)
        packet[SEQUENCE + i] = (char)('0' + value % 10);
}

/* Sends the batch one by one, as most programs do. send(2) sleeps while the queue is full. */
static void send_singly(int fd, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (send(fd, vectors[i].iov_base, vectors[i].iov_len, 0) < 0)
            die("send");
}

/* Waits for a line on stdin, then sends numbered copies of the packet. */
static void generate(const char *peer, unsigned long count, const char *packet, const char *local,
                     void (*send_all)(int fd, unsigned count))
{
    size_t size = strlen(packet);
    char *slots = map(BATCH * size), go;
    prepare(slots, size);
    for (int i = 0; i < BATCH; i++)
        memcpy(vectors[i].iov_base, packet, size);
    int fd = open_socket(local, NULL);
    if (read(0, &go, 1) != 1)
        return;
    struct sockaddr_un name = address(peer);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0)
        die(peer);
    for (unsigned long sent = 0; sent < count;) {
        unsigned batch = count - sent < BATCH ? (unsigned)(count - sent) : BATCH;
        for (unsigned i = 0; i < batch; i++)
            number(vectors[i].iov_base, sent + i);
        send_all(fd, batch);
        sent += batch;
    }
}

/* Sends copies of the packet from forty sockets in turn, without waiting: what finds the queue full is lost. */
static void volley(const char *peer, unsigned long count, const char *packet)
{
    enum { SENDERS = 40 };
    int fds[SENDERS];
    for (int i = 0; i < SENDERS; i++)
        fds[i] = open_socket(NULL, peer);
    for (unsigned long i = 0; i < count; i++)
        if (send(fds[i % SENDERS], packet, strlen(packet), MSG_DONTWAIT) < 0 && errno != EAGAIN)
            die("send");
}

/* Waits for a line on stdin, then sends copies of the packet from so many processes at once. */
static void crowd(const char *peer, unsigned long count, unsigned long senders, const char *packet, const char *local)
{
    int gate[2], status;
    char go;
    open_socket(local, NULL);
    if (pipe(gate) < 0)
        die("pipe");
    for (unsigned long i = 0; i < senders; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child > 0)
            continue;
        alarm(RUN_LIMIT);
        close(gate[1]);
        if (read(gate[0], &go, 1) != 0)
            exit(1);
        int fd = open_socket(NULL, peer);
        /* send(2) sleeps while the queue is full, and a datagram that is read wakes one of those that sleep. */
        for (unsigned long left = count / senders + (i < count % senders); left > 0; left--)
            if (send(fd, packet, strlen(packet), 0) < 0)
                die("send");
        exit(0);
    }
    if (read(0, &go, 1) != 1)
        exit(1);
    close(gate[1]);
    while (wait(&status) > 0)
        if (status != 0)
            exit(1);
}

/* Sends one request from each of many sockets, and reads no answer until all are there. Prints the average
 * nanoseconds for one. */
static void clients(const char *peer, unsigned long count, const char *packet, const char *local)
{
    struct rlimit files = {.rlim_cur = count + 64, .rlim_max = count + 64}, now_allowed;
    if (getrlimit(RLIMIT_NOFILE, &now_allowed) < 0)
        die("getrlimit");
    if (files.rlim_max < now_allowed.rlim_max)
        files.rlim_max = now_allowed.rlim_max;
    if (files.rlim_cur > now_allowed.rlim_cur && setrlimit(RLIMIT_NOFILE, &files) < 0)
        die("too few descriptors are allowed");
    open_socket(local, NULL);
    int *fds = map(count * sizeof *fds);
    size_t size = strlen(packet);
    char answer[4096], go;
    if (read(0, &go, 1) != 1)
        return;
    for (unsigned long i = 0; i < count; i++)
        fds[i] = open_socket("", peer);
    double start = now();
    for (unsigned long i = 0; i < count; i++)
        if (send(fds[i], packet, size, 0) < 0)
            die("send");
    for (unsigned long i = 0; i < count; i++)
        if (recv(fds[i], answer, sizeof answer, MSG_PEEK) < 0)
            die("recv");
    printf("%.0f\n", (now() - start) / (double)count);
    fflush(stdout);
    for (unsigned long i = 0; i < count; i++)
        if (recv(fds[i], answer, sizeof answer, MSG_DONTWAIT) != (ssize_t)size || memcmp(answer, packet, size) != 0)
            die("the answer is not what was asked");
}

/* Sends large packets: JSON strings of the given size. */
static void burst(const char *peer, unsigned long count, size_t size)
{
    int fd = open_socket("", peer), room = 16 << 20;
    char *packet = map(size + 1);
    memset(packet, 'a', size);
    if (size >= 2)
        packet[0] = packet[size - 1] = '"';
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    while (count-- > 0)
        if (send(fd, packet, size, 0) < 0)
            die("send");
}

/* Sends requests, of which `window` are under way at a time, and checks their answers; prints the average
 * nanoseconds for one. */
static void ping(const char *peer, unsigned long count, const char *packet, const char *local, unsigned long window)
{
    int fd = open_socket(local, NULL);
    size_t size = strlen(packet);
    char answer[4096], go;
    if (read(0, &go, 1) != 1)
        return;
    struct sockaddr_un name = address(peer);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0)
        die(peer);
    double start = now();
    for (unsigned long sent = 0, answered = 0; answered < count; answered++) {
        for (; sent < count && sent < answered + window; sent++)
            if (send(fd, packet, size, 0) < 0)
                die("send");
        ssize_t n = recv(fd, answer, sizeof answer, 0);
        if (n != (ssize_t)size || memcmp(answer, packet, size) != 0) {
            fputs("the answer is not what was asked\n", stderr);
            exit(1);
        }
    }
    printf("%.0f\n", (now() - start) / (double)count);
}

/* Copies stdin to stdout as it comes: whole lines stay whole. */
static int filter(void)
{
    ssize_t n;
    while ((n = read(0, output, sizeof output)) > 0)
        for (ssize_t done = 0, written; done < n; done += written)
            if ((written = write(1, output + done, (size_t)(n - done))) < 0)
                die("write");
    return n < 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "", *path = argv[argc > 2 ? 2 : 0];
    if (strcmp(mode, "one") == 0 && argc == 4) {
        int fd = open_socket("", path);
        return send(fd, argv[3], strlen(argv[3]), 0) < 0;
    }
    if (argc == 2 && strcmp(argv[1], "filter") == 0)
        return filter();
    unsigned long count = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    alarm(RUN_LIMIT);
    if (strcmp(mode, "receive") == 0 && argc == 5)
        deepen_queues(argv[4]);
    if (strcmp(mode, "receive") == 0 && (argc == 4 || argc == 5))
        receive(path, count, 0);
    else if (strcmp(mode, "receive-senders") == 0 && argc == 4)
        receive(path, count, 1);
    else if (strcmp(mode, "sink") == 0 && argc == 4)
        sink(path, count);
    else if (strcmp(mode, "send") == 0 && argc == 3)
        send_lines(path);
    else if (strcmp(mode, "echo") == 0 && argc == 3)
        echo(path);
    else if (strcmp(mode, "echo-spin") == 0 && argc == 3) {
        spin = SPIN;
        echo(path);
    } else if (strcmp(mode, "generate") == 0 && argc == 6)
        generate(path, count, argv[4], argv[5], send_batch);
    else if (strcmp(mode, "generate-singly") == 0 && argc == 6)
        generate(path, count, argv[4], argv[5], send_singly);
    else if (strcmp(mode, "crowd") == 0 && argc == 7)
        crowd(path, count, strtoul(argv[4], NULL, 10), argv[5], argv[6]);
    else if (strcmp(mode, "clients") == 0 && argc == 6)
        clients(path, count, argv[4], argv[5]);
    else if (strcmp(mode, "volley") == 0 && argc == 5)
        volley(path, count, argv[4]);
    else if (strcmp(mode, "ping") == 0 && argc == 6)
        ping(path, count, argv[4], argv[5], 1);
    else if (strcmp(mode, "ping-window") == 0 && argc == 6)
        ping(path, count, argv[4], argv[5], WINDOW);
    else if (strcmp(mode, "burst") == 0 && argc == 5)
        burst(path, count, strtoul(argv[4], NULL, 10));
    else {
        fputs("floor one|receive|receive-senders|sink|send|echo|echo-spin|generate|generate-singly|crowd|clients|volley|ping|ping-window|burst PATH … or filter\n", stderr);
        return 2;
    }
    return 0;
}
