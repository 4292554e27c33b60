/* blkit.h: a program's own disk, for virtual machines.
 *
 * The program says what a read and a write do; the library listens on a Unix socket and speaks
 * vhost-user-blk with whoever connects, on threads of its own.
 *
 * Functions return a negative errno when they fail, and the thread's message says why.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#ifndef BLKIT_H
#define BLKIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct blkit_server;

/* A disk. The functions return 0 or a negative errno, which is the answer to the request. They are
 * called by threads of the library, several at a time, and may wait. A range is never empty, always
 * inside the disk, and of whole blocks. NULL: the disk cannot do it. */
struct blkit_device {
  size_t struct_size;  /* sizeof (struct blkit_device) */
  void *opaque;        /* Passed to the functions. */
  uint64_t size;       /* Bytes. */
  uint32_t block_size; /* Bytes, a power of two; 0: 512. */

  /* Needed. */
  int (*pread) (void *opaque, void *buf, size_t count, uint64_t offset);
  /* NULL: the disk is read-only. */
  int (*pwrite) (void *opaque, const void *buf, size_t count, uint64_t offset);
  /* Makes durable what was written by calls that have returned. NULL: everything is, at once. */
  int (*flush) (void *opaque);
  /* "unmap" allows to free the space. NULL: zeroes are written by pwrite. */
  int (*write_zeroes) (void *opaque, uint64_t count, uint64_t offset, bool unmap);
  /* The bytes are not needed any more. */
  int (*discard) (void *opaque, uint64_t count, uint64_t offset);
  /* The last call: none comes any more. Also if serving could not begin, unless because struct_size
   * is wrong. */
  void (*free) (void *opaque);
};

/* Who may attach at the same time to a disk that can be written. */
enum {
  BLKIT_SHARING_EXCLUSIVE = 0,  /* One. */
  BLKIT_SHARING_ONE_WRITER = 1, /* The first may write, the others read. */
  BLKIT_SHARING_SHARED = 2,     /* All may write. */
};

/* How it is served. What is 0 has its default; so has all of it if the pointer is NULL. */
struct blkit_serve_options {
  size_t struct_size; /* sizeof (struct blkit_serve_options) */
  uint32_t queues;    /* 1 to 256; 1 */
  uint32_t threads;   /* over which queues are spread; 1 */
  uint32_t sharing;   /* BLKIT_SHARING_... */
  bool read_only;     /* Nobody may write. */
  const char *serial; /* 20 bytes of it are seen. */
};

/* Why the thread's last call failed. */
const char *blkit_get_error_msg (void);

/* Serves the device on a Unix socket, whose file is made here. The device is copied. */
int blkit_serve_vhost_user (const char *path, const struct blkit_device *device,
                            const struct blkit_serve_options *options,
                            struct blkit_server **server);

/* Front-ends that are attached. */
int blkit_server_connections (struct blkit_server *server);

/* The disk has so many bytes now: front-ends are told. */
int blkit_server_resize (struct blkit_server *server, uint64_t size);

/* Ends it: what is in flight is answered, connections end, the socket's file is removed. What is not
 * done after so many milliseconds is cut off (-ETIMEDOUT). NULL is allowed. */
int blkit_server_close (struct blkit_server *server, unsigned milliseconds);

#ifdef __cplusplus
}
#endif

#endif /* BLKIT_H */
