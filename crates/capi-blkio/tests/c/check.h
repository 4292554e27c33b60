/* What the programs share. They print what they see, and the tests compare that with what is
 * written in NAME.expected, which libblkio 1.5.0 makes the same program print. */

#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <blkio.h>

/* Prints a call and what it returned, with the error if there is one. */
#define SHOW(call) show (#call, (call))

static inline void
show (const char *call, int result)
{
  printf ("%s = ", call);
  if (result < 0)
    printf ("%s [%s]\n", strerrorname_np (-result), blkio_get_error_msg ());
  else
    printf ("%d\n", result);
}

/* Ends the program if a call fails that must not. */
#define MUST(call) must (#call, (call))

static inline int
must (const char *call, int result)
{
  if (result < 0) {
    printf ("%s failed: %s [%s]\n", call, strerrorname_np (-result), blkio_get_error_msg ());
    exit (EXIT_FAILURE);
  }
  return result;
}

/* An instance that has been connected, or also started. */
static inline struct blkio *
connected (const char *driver, const char *path)
{
  struct blkio *b;

  MUST (blkio_create (driver, &b));
  MUST (blkio_set_str (b, "path", path));
  MUST (blkio_connect (b));
  return b;
}

static inline struct blkio *
started (const char *driver, const char *path)
{
  struct blkio *b = connected (driver, path);

  MUST (blkio_start (b));
  return b;
}

/* Waits for one completion and prints it. */
static inline int
complete (struct blkioq *q, const char *what)
{
  struct blkio_completion completion;
  int result = blkioq_do_io (q, &completion, 1, 1, NULL);

  printf ("%s: ", what);
  if (result < 0)
    printf ("do_io %s [%s]\n", strerrorname_np (-result), blkio_get_error_msg ());
  else if (completion.ret < 0)
    printf ("%s [%s]\n", strerrorname_np (-completion.ret),
            completion.error_msg != NULL ? completion.error_msg : "no text");
  else
    printf ("%d%s\n", completion.ret, completion.error_msg != NULL ? " and a text" : "");
  return result < 0 ? result : completion.ret;
}

/* A region that every driver takes, mapped. */
static inline struct blkio_mem_region
region_of (struct blkio *b, size_t len)
{
  struct blkio_mem_region region;

  MUST (blkio_alloc_mem_region (b, &region, len));
  MUST (blkio_map_mem_region (b, &region));
  return region;
}

#endif
