/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A VFIO device without hardware, that live-migrates and fails on request
 *
 * Loading the module makes platform devices ferry.0, ferry.1, ... Each is a VFIO device of that name
 * in a group of its own (/sys/bus/platform/devices/ferry.N/iommu_group) and looks like a conventional
 * PCI function without INTx. Written for Linux 6.12.
 *
 * Regions
 *   config  256 bytes: MSI-X capability at 0x40 (table BAR2+0, PBA BAR2+0x800, 4 vectors), vendor
 *           capability at 0x50
 *   BAR0    16 KiB: the registers below in the first 4 KiB, then 12 KiB of RAM, the part that may be
 *           mmapped (a sparse mmap capability says so)
 *   BAR2    4 KiB: MSI-X table and PBA, plain memory: masking is the VMM's business
 *
 * Registers: 32 bits, little endian, accessed naturally aligned with 4 or 8 bytes, the lower word first
 *   0x00 ID          ro  0x52524546 "FERR"
 *   0x04 VERSION     ro  1
 *   0x08 STATE_BYTES ro  size of the device state; 64 bits
 *   0x10 STATE_OFS   rw  byte offset into the state, a multiple of 4
 *   0x14 STATE_DATA  rw  the word there; each access advances STATE_OFS by 4
 *   0x18 FILL        rw  writing S makes 64-bit word i of the state x ^ (x >> 29), where
 *                        x = S * 0x9e3779b97f4a7c15 + i * 0xbf58476d1ce4e5b9; 0 clears the state
 *   0x1c GENERATION  ro  how often the state changed since reset
 *   0x20 DIGEST      ro  64 bits; reading the lower half computes it: h = 0xcbf29ce484222325, then
 *                        h = (h ^ word) * 0x100000001b3 for each 64-bit word of the state
 *   0x28-0x3c SCRATCH rw does nothing
 *   0x40 DMA_IOVA    rw  64 bits
 *   0x48 DMA_BYTES   rw  a multiple of 4, at most 1 MiB
 *   0x4c DMA_VALUE   rw
 *   0x50 DMA_CMD     wo  1 fills guest memory with DMA_VALUE, 2 copies guest memory to the state at
 *                        STATE_OFS, 3 the state to guest memory; adding (vector + 1) << 8 raises that
 *                        vector afterwards
 *   0x54 DMA_STATUS  ro  0, or the errno of the last command. EPERM: bus mastering is off. EBUSY: the
 *                        migration state forbids DMA (RUNNING and PRE_COPY allow it)
 *   0x58 DMA_COUNT   ro  commands carried out
 *   0x60 IRQ_RAISE   wo  raises the MSI-X vector of that number; lost in a stopped state or without eventfd
 *   0x64 IRQ_COUNT   ro  interrupts delivered to an eventfd
 *   0x80 AUTO_IOVA   rw  64 bits, a multiple of 4096: the region that dma_rate is about
 *   0x88 AUTO_BYTES  rw  64 bits, whole pages
 *   0x90 AUTO_CONTROL rw bit 0: write to the region, page after page, round and round, while the
 *                        migration state allows DMA; the page written as the Nth holds N in each
 *                        64-bit word
 *   0x94 AUTO_STATUS ro  0, or the errno that turned AUTO_CONTROL off
 *   0x98 AUTO_PAGES  ro  64 bits, pages written
 *
 * All rw registers, the counters, the BAR0 RAM and the state are migrated; config space and BAR2 are the
 * VMM's business, as with hardware. Reset clears everything but the eventfds and the DMA log; opening the
 * device clears it likewise, without counting as a reset.
 *
 * sysfs attributes of the platform device (*: also a module parameter, for the default; (c): can be
 * changed only while the device is closed)
 *   state_bytes *(c)  a multiple of 4096 up to 1 GiB; 1 MiB
 *   mig_flags *(c)    VFIO_DEVICE_FEATURE_MIGRATION flags: 1, 3, 5 or 7; 0: it can't migrate. 7
 *   dma_logging *(c)  0: no device DMA logging. 1
 *   dirty_rate *      bytes per second of its state that the device changes in RUNNING and PRE_COPY. 0.
 *                     The changes are made when somebody looks (register access, read, ioctl, arc):
 *                     a poll() that waits never sees them
 *   dma_rate          pages per second that the device writes to the region of AUTO_IOVA, by itself. 0
 *   enomsg            at a temporary end in PRE_COPY read() gives, 1: ENOMSG, and poll() says not
 *                     readable; 0: 0, and poll() says readable. 1
 *   latency_us        "USEC" for all arcs or "FROM TO USEC": how long an arc takes
 *   fail_arc          "FROM TO ERRNO [error]": this arc fails once, and leaves the device in ERROR if
 *                     told so; "none"
 *   reject_image      1: RESUMING -> STOP fails with EINVAL. 0
 *   read_fail_at      stream offset where read() fails with EIO; -1: never
 *   write_fail_at     the same for write()
 *   data_size_fails   errno of MIG_DATA_SIZE; 0: none
 *   state             ro  error stop running stop-copy resuming running-p2p pre-copy pre-copy-p2p
 *   state_log         states entered, one per line, the last 256; writing clears it
 *   resets            ro  VFIO_DEVICE_RESETs so far
 *   image_error       ro  why the last image was refused, or "none"
 *
 * The image on the data fd is a row of records, struct ftd_record + payload: one BEGIN, DATA for each
 * extent of the state (all of it once, then what changed), one END after the device stopped. Anything
 * else, e.g. two images in a row, is taken by write() and refused with EINVAL by RESUMING -> STOP, which
 * leaves the device in RESUMING.
 */
#ifndef FERRY_VFIO_TESTDEV_H
#define FERRY_VFIO_TESTDEV_H

#include <linux/eventfd.h>
#include <linux/platform_device.h>
#include <linux/vfio.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#define FTD_REGION_SHIFT 40
#define FTD_REGION_MASK (BIT_ULL(FTD_REGION_SHIFT) - 1)
#define FTD_VECTORS 4
#define FTD_CONFIG_BYTES 256
#define FTD_REG_BYTES SZ_4K
#define FTD_RAM_BYTES (3 * SZ_4K)
#define FTD_BAR0_BYTES (FTD_REG_BYTES + FTD_RAM_BYTES)
#define FTD_BAR2_BYTES SZ_4K
#define FTD_PAGE SZ_4K
#define FTD_EXTENT SZ_64K
#define FTD_DMA_MAX SZ_1M
#define FTD_STATES (VFIO_DEVICE_STATE_PRE_COPY_P2P + 1)
#define FTD_LOG_ENTRIES 256

enum {
	REG_ID = 0x00, REG_VERSION = 0x04, REG_STATE_BYTES = 0x08, REG_STATE_OFS = 0x10,
	REG_STATE_DATA = 0x14, REG_FILL = 0x18, REG_GENERATION = 0x1c, REG_DIGEST = 0x20,
	REG_SCRATCH = 0x28, REG_DMA_IOVA = 0x40, REG_DMA_BYTES = 0x48,
	REG_DMA_VALUE = 0x4c, REG_DMA_CMD = 0x50, REG_DMA_STATUS = 0x54,
	REG_DMA_COUNT = 0x58, REG_IRQ_RAISE = 0x60, REG_IRQ_COUNT = 0x64,
	REG_AUTO_IOVA = 0x80, REG_AUTO_BYTES = 0x88, REG_AUTO_CONTROL = 0x90,
	REG_AUTO_STATUS = 0x94, REG_AUTO_PAGES = 0x98, REG_END = 0xa0,
};

enum { FTD_BEGIN = 1, FTD_DATA = 2, FTD_END = 3 };
#define FTD_MAGIC 0x44524346 /* "FCRD" */

struct ftd_record {
	__le32 magic;
	__le32 type;
	__le64 session;		/* the same in all records of an image */
	__le64 offset;		/* DATA: into the state; BEGIN: its size; END: bytes before it */
	__le64 bytes;		/* of the payload that follows */
};

struct ftd_end {
	__le32 regs[REG_END / 4];
	u8 ram[FTD_RAM_BYTES];
};

#define FTD_PAYLOAD_MAX max(FTD_EXTENT, sizeof(struct ftd_end))

/* A data session; the file holds it, and the device as long as the session lasts. */
struct ftd_stream {
	struct ftd *dev;
	struct file *file;
	u64 session;
	u64 pos;		/* bytes that went through read() or write() */
	u64 made;		/* saving: bytes of the records made so far */
	size_t head, tail;	/* valid part of buf */
	bool begun, ended;
	bool initial;		/* saving: buf belongs to the first pass */
	const char *fault;	/* loading: why the image is no good */
	u8 buf[];
};

struct ftd {
	struct vfio_device vdev;
	struct mutex lock;	/* all of the device; held during arcs, taken before mmap_lock */
	bool open;
	enum vfio_device_mig_state mig_state;
	struct ftd_stream *stream;
	struct eventfd_ctx *vector[FTD_VECTORS];

	u8 *state;
	size_t pages;
	unsigned long *todo;	/* pages the first pass has yet to send, or to receive */
	unsigned long *dirty;	/* pages changed after that */
	size_t age_page;	/* the next one dirty_rate changes */
	ktime_t aged;
	u32 regs[REG_END / 4];
	u8 *ram;
	u8 config[FTD_CONFIG_BYTES];
	u8 bar2[FTD_BAR2_BYTES];

	bool logging;
	struct xarray dma_log;	/* written page numbers */
	struct delayed_work auto_dma;
	ktime_t auto_since;	/* up to when dma_rate has been satisfied */

	s64 state_bytes, mig_flags, dma_logging, dirty_rate, dma_rate, enomsg, reject_image;
	s64 read_fail_at, write_fail_at, data_size_fails;
	const char *image_error;

	spinlock_t knobs;	/* the rest */
	u32 latency_us[FTD_STATES][FTD_STATES];
	int fail_from, fail_to, fail_errno;
	bool fail_error;
	u8 log[FTD_LOG_ENTRIES];
	unsigned int logged, resets;
};

static inline struct ftd *to_ftd(struct vfio_device *vdev)
{
	return container_of(vdev, struct ftd, vdev);
}

static inline bool ftd_is_precopy(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

static inline bool ftd_is_saving(enum vfio_device_mig_state state)
{
	return ftd_is_precopy(state) || state == VFIO_DEVICE_STATE_STOP_COPY;
}

/* RUNNING_P2P still interrupts, but only these two states do DMA or change by themselves. */
static inline bool ftd_is_active(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_RUNNING || state == VFIO_DEVICE_STATE_PRE_COPY;
}

extern const char *const ftd_state_names[FTD_STATES];
extern const struct vfio_device_ops ftd_ops;

/* device.c; the caller holds the lock */
void ftd_age(struct ftd *ftd);
void ftd_enter(struct ftd *ftd, enum vfio_device_mig_state state);
void ftd_auto_dma_begin(struct ftd *ftd);
void ftd_auto_dma_work(struct work_struct *work); /* takes the lock itself */

/* migration.c */
void ftd_end_stream(struct ftd *ftd);
void ftd_offer(struct ftd *ftd);

/* control.c */
int ftd_init(struct vfio_device *vdev);
void ftd_release(struct vfio_device *vdev);

#endif
