// SPDX-License-Identifier: GPL-2.0-only
/* The test device's data sessions, migration states and DMA log */
#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/iova_bitmap.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/random.h>

#include "ferry-vfio-testdev.h"

const char *const ftd_state_names[FTD_STATES] = {
	[VFIO_DEVICE_STATE_ERROR] = "error",
	[VFIO_DEVICE_STATE_STOP] = "stop",
	[VFIO_DEVICE_STATE_RUNNING] = "running",
	[VFIO_DEVICE_STATE_STOP_COPY] = "stop-copy",
	[VFIO_DEVICE_STATE_RESUMING] = "resuming",
	[VFIO_DEVICE_STATE_RUNNING_P2P] = "running-p2p",
	[VFIO_DEVICE_STATE_PRE_COPY] = "pre-copy",
	[VFIO_DEVICE_STATE_PRE_COPY_P2P] = "pre-copy-p2p",
};

/* The migration stream */

void ftd_end_stream(struct ftd *ftd)
{
	struct ftd_stream *s = ftd->stream;

	if (!s)
		return;
	ftd->stream = NULL;
	fput(s->file);
}

static struct ftd_record *ftd_add_record(struct ftd_stream *s, u32 type, u64 offset, size_t bytes)
{
	struct ftd_record *r = (void *)s->buf;

	r->magic = cpu_to_le32(FTD_MAGIC);
	r->type = cpu_to_le32(type);
	r->session = cpu_to_le64(s->session);
	r->offset = cpu_to_le64(offset);
	r->bytes = cpu_to_le64(bytes);
	s->head = 0;
	s->tail = sizeof(*r) + bytes;
	s->made += s->tail;
	return r;
}

/* Puts the next extent of @map into the buffer; false if there is none. */
static bool ftd_make_data(struct ftd_stream *s, unsigned long *map)
{
	struct ftd *ftd = s->dev;
	size_t first = find_first_bit(map, ftd->pages), end;

	if (first >= ftd->pages)
		return false;
	end = find_next_zero_bit(map, min(first + FTD_EXTENT / FTD_PAGE, ftd->pages), first);
	bitmap_clear(map, first, end - first);
	memcpy(ftd_add_record(s, FTD_DATA, first * FTD_PAGE, (end - first) * FTD_PAGE) + 1,
	       ftd->state + first * FTD_PAGE, (end - first) * FTD_PAGE);
	return true;
}

/* Fills the empty buffer; false at the temporary or final end. */
static bool ftd_make(struct ftd_stream *s)
{
	struct ftd *ftd = s->dev;
	struct ftd_end *end;
	int i;

	if (!s->begun) {
		ftd_add_record(s, FTD_BEGIN, ftd->state_bytes, 0);
		s->begun = s->initial = true;
		return true;
	}
	s->initial = ftd_make_data(s, ftd->todo);
	if (s->initial || ftd_make_data(s, ftd->dirty))
		return true;
	if (s->ended || ftd->mig_state != VFIO_DEVICE_STATE_STOP_COPY)
		return false;
	end = (void *)(ftd_add_record(s, FTD_END, s->made, sizeof(*end)) + 1);
	for (i = 0; i < ARRAY_SIZE(end->regs); i++)
		end->regs[i] = cpu_to_le32(ftd->regs[i]);
	memcpy(end->ram, ftd->ram, FTD_RAM_BYTES);
	s->ended = true;
	return true;
}

/* Bytes that may still pass before @fail_at, which fails the call if it is none. */
static ssize_t ftd_limit(struct ftd_stream *s, size_t len, s64 fail_at)
{
	if (fail_at < 0 || s->pos + len <= fail_at)
		return len;
	return s->pos < fail_at ? fail_at - s->pos : -EIO;
}

static ssize_t ftd_stream_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	struct ftd_stream *s = file->private_data;
	struct ftd *ftd = s->dev;
	ssize_t done = 0, ret;
	size_t n;

	if (pos)
		return -ESPIPE;
	mutex_lock(&ftd->lock);
	ftd_age(ftd);
	ret = -ENODEV;
	if (ftd->stream != s)
		goto out;
	ret = ftd_limit(s, len, READ_ONCE(ftd->read_fail_at));
	if (ret < 0)
		goto out;
	len = ret;
	ret = 0;
	while (len) {
		if (s->head == s->tail && !ftd_make(s)) {
			if (ftd_is_precopy(ftd->mig_state) && READ_ONCE(ftd->enomsg))
				ret = -ENOMSG;
			break;
		}
		n = min(len, s->tail - s->head);
		ret = copy_to_user(buf + done, s->buf + s->head, n) ? -EFAULT : 0;
		if (ret)
			break;
		s->head += n;
		s->pos += n;
		done += n;
		len -= n;
		cond_resched();
	}
out:
	mutex_unlock(&ftd->lock);
	return done ?: ret;
}

static __poll_t ftd_stream_poll(struct file *file, struct poll_table_struct *wait)
{
	struct ftd_stream *s = file->private_data;
	struct ftd *ftd = s->dev;
	__poll_t events = EPOLLIN | EPOLLRDNORM;

	mutex_lock(&ftd->lock);
	ftd_age(ftd);
	if (ftd->stream != s)
		events |= EPOLLRDHUP;
	else if (READ_ONCE(ftd->enomsg) && ftd_is_precopy(ftd->mig_state) && s->begun &&
		 s->head == s->tail && bitmap_empty(ftd->todo, ftd->pages) &&
		 bitmap_empty(ftd->dirty, ftd->pages))
		events = 0;
	mutex_unlock(&ftd->lock);
	return events;
}

static long ftd_stream_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct ftd_stream *s = file->private_data;
	struct ftd *ftd = s->dev;
	struct vfio_precopy_info info;
	const size_t minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	long ret;

	if (cmd != VFIO_MIG_GET_PRECOPY_INFO ||
	    !(ftd->vdev.migration_flags & VFIO_MIGRATION_PRE_COPY))
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	mutex_lock(&ftd->lock);
	ftd_age(ftd);
	if (!ftd_is_precopy(ftd->mig_state)) {
		ret = -EINVAL;
	} else if (ftd->stream != s) {
		ret = -ENODEV;
	} else {
		info.initial_bytes = (u64)bitmap_weight(ftd->todo, ftd->pages) * FTD_PAGE;
		info.dirty_bytes = (u64)bitmap_weight(ftd->dirty, ftd->pages) * FTD_PAGE;
		*(s->initial ? &info.initial_bytes : &info.dirty_bytes) += s->tail - s->head;
		ret = copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
	}
	mutex_unlock(&ftd->lock);
	return ret;
}

/* Judges the record header in the buffer. */
static const char *ftd_check(struct ftd_stream *s)
{
	struct ftd *ftd = s->dev;
	struct ftd_record *r = (void *)s->buf;
	u32 type = le32_to_cpu(r->type);
	u64 session = le64_to_cpu(r->session);
	u64 offset = le64_to_cpu(r->offset), bytes = le64_to_cpu(r->bytes);

	if (le32_to_cpu(r->magic) != FTD_MAGIC)
		return "bad magic";
	if (s->ended)
		return "data after the end";
	if ((type == FTD_BEGIN) == s->begun)
		return s->begun ? "a second image begins" : "no beginning";
	switch (type) {
	case FTD_BEGIN:
		s->session = session;
		s->begun = true;
		if (bytes)
			return "bad length";
		return offset == ftd->state_bytes ? NULL : "made with another state_bytes";
	case FTD_DATA:
		if (!bytes || bytes > FTD_EXTENT || offset % FTD_PAGE || bytes % FTD_PAGE ||
		    offset >= ftd->state_bytes || bytes > ftd->state_bytes - offset)
			return "bad extent";
		break;
	case FTD_END:
		if (bytes != sizeof(struct ftd_end))
			return "bad length";
		if (offset != s->pos - sizeof(*r))
			return "bytes are missing";
		break;
	default:
		return "bad record type";
	}
	return session == s->session ? NULL : "mixed sessions";
}

/* Takes over the complete record in the buffer. */
static void ftd_apply(struct ftd_stream *s)
{
	struct ftd *ftd = s->dev;
	struct ftd_record *r = (void *)s->buf;
	struct ftd_end *end = (void *)(r + 1);
	u64 offset = le64_to_cpu(r->offset), bytes = le64_to_cpu(r->bytes);
	int i;

	switch (le32_to_cpu(r->type)) {
	case FTD_DATA:
		memcpy(ftd->state + offset, r + 1, bytes);
		bitmap_clear(ftd->todo, offset / FTD_PAGE, bytes / FTD_PAGE);
		break;
	case FTD_END:
		for (i = 0; i < ARRAY_SIZE(end->regs); i++)
			ftd->regs[i] = le32_to_cpu(end->regs[i]);
		memcpy(ftd->ram, end->ram, FTD_RAM_BYTES);
		ftd_auto_dma_begin(ftd);
		s->ended = true;
		break;
	}
}

static ssize_t ftd_stream_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	struct ftd_stream *s = file->private_data;
	struct ftd *ftd = s->dev;
	struct ftd_record *r = (void *)s->buf;
	ssize_t done = 0, ret;
	size_t n, want;

	if (pos)
		return -ESPIPE;
	mutex_lock(&ftd->lock);
	ret = -ENODEV;
	if (ftd->stream != s)
		goto out;
	ret = ftd_limit(s, len, READ_ONCE(ftd->write_fail_at));
	if (ret < 0)
		goto out;
	len = ret;
	ret = 0;
	while (len) {
		want = sizeof(*r) + (s->tail < sizeof(*r) ? 0 : le64_to_cpu(r->bytes)) - s->tail;
		n = s->fault ? len : min(len, want);
		if (!s->fault && copy_from_user(s->buf + s->tail, buf + done, n)) {
			ret = -EFAULT;
			break;
		}
		s->tail += n;
		s->pos += n;
		done += n;
		len -= n;
		if (s->fault)
			continue;
		if (s->tail == sizeof(*r))
			s->fault = ftd_check(s);
		if (!s->fault && s->tail >= sizeof(*r) &&
		    s->tail == sizeof(*r) + le64_to_cpu(r->bytes)) {
			ftd_apply(s);
			s->tail = 0;
		}
		cond_resched();
	}
out:
	mutex_unlock(&ftd->lock);
	return done ?: ret;
}

static int ftd_stream_release(struct inode *inode, struct file *file)
{
	struct ftd_stream *s = file->private_data;

	put_device(&s->dev->vdev.device);
	kvfree(s);
	return 0;
}

static const struct file_operations ftd_save_fops = {
	.owner = THIS_MODULE,
	.read = ftd_stream_read,
	.poll = ftd_stream_poll,
	.unlocked_ioctl = ftd_stream_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = ftd_stream_release,
};

static const struct file_operations ftd_load_fops = {
	.owner = THIS_MODULE,
	.write = ftd_stream_write,
	.release = ftd_stream_release,
};

static struct file *ftd_begin_stream(struct ftd *ftd, bool load)
{
	struct ftd_stream *s = kvzalloc(
		struct_size(s, buf, sizeof(struct ftd_record) + FTD_PAYLOAD_MAX), GFP_KERNEL);
	struct file *file;

	if (!s)
		return ERR_PTR(-ENOMEM);
	file = anon_inode_getfile("ferry_mig", load ? &ftd_load_fops : &ftd_save_fops, s,
				  load ? O_WRONLY : O_RDONLY);
	if (IS_ERR(file)) {
		kvfree(s);
		return file;
	}
	stream_open(file->f_inode, file);
	get_device(&ftd->vdev.device);
	s->dev = ftd;
	s->file = get_file(file);
	s->session = get_random_u64();
	ftd->stream = s;
	bitmap_fill(ftd->todo, ftd->pages);
	bitmap_zero(ftd->dirty, ftd->pages);
	return file;
}

static int ftd_finish_load(struct ftd *ftd)
{
	struct ftd_stream *s = ftd->stream;
	const char *fault = s->fault;

	if (!fault && READ_ONCE(ftd->reject_image))
		fault = "reject_image is set";
	if (!fault && (!s->ended || s->tail || !bitmap_empty(ftd->todo, ftd->pages)))
		fault = "incomplete";
	WRITE_ONCE(ftd->image_error, fault ?: "none");
	return fault ? -EINVAL : 0;
}

/* The migration state machine */

/* Waits as latency_us says; fails if fail_arc says so. */
static int ftd_scripted(struct ftd *ftd, enum vfio_device_mig_state from,
			enum vfio_device_mig_state to)
{
	bool error = false;
	u32 usec;
	int ret = 0;

	spin_lock(&ftd->knobs);
	usec = ftd->latency_us[from][to];
	if (ftd->fail_errno && ftd->fail_from == from && ftd->fail_to == to) {
		ret = -ftd->fail_errno;
		error = ftd->fail_error;
		ftd->fail_errno = 0;
	}
	spin_unlock(&ftd->knobs);
	if (usec)
		fsleep(usec);
	if (error) {
		ftd_end_stream(ftd);
		ftd_enter(ftd, VFIO_DEVICE_STATE_ERROR);
	}
	return ret;
}

/* One arc. The core lets only legal ones through, so the two states tell what the session does. */
static struct file *ftd_arc(struct ftd *ftd, enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state from = ftd->mig_state;
	struct file *file = NULL;
	int ret = ftd_scripted(ftd, from, to);

	if (!ret && from == VFIO_DEVICE_STATE_RESUMING)
		ret = ftd_finish_load(ftd);
	if (ret)
		return ERR_PTR(ret);
	ftd_age(ftd);
	if (from == VFIO_DEVICE_STATE_RESUMING || (ftd_is_saving(from) && !ftd_is_saving(to)))
		ftd_end_stream(ftd);
	if (to == VFIO_DEVICE_STATE_RESUMING || (ftd_is_saving(to) && !ftd_is_saving(from)))
		file = ftd_begin_stream(ftd, to == VFIO_DEVICE_STATE_RESUMING);
	if (!IS_ERR(file))
		ftd_enter(ftd, to);
	return file;
}

static struct file *ftd_set_state(struct vfio_device *vdev, enum vfio_device_mig_state to)
{
	struct ftd *ftd = to_ftd(vdev);
	enum vfio_device_mig_state next;
	struct file *file = NULL;
	int ret;

	mutex_lock(&ftd->lock);
	/* vfio_mig_get_next_state() warns when it is asked for a way out of ERROR. */
	if (ftd->mig_state == VFIO_DEVICE_STATE_ERROR)
		file = ERR_PTR(-EINVAL);
	while (!IS_ERR(file) && ftd->mig_state != to) {
		ret = vfio_mig_get_next_state(vdev, ftd->mig_state, to, &next);
		file = ret ? ERR_PTR(ret) : ftd_arc(ftd, next);
	}
	mutex_unlock(&ftd->lock);
	return file;
}

static int ftd_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct ftd *ftd = to_ftd(vdev);

	mutex_lock(&ftd->lock);
	*state = ftd->mig_state;
	mutex_unlock(&ftd->lock);
	return 0;
}

static int ftd_get_data_size(struct vfio_device *vdev, unsigned long *bytes)
{
	struct ftd *ftd = to_ftd(vdev);
	s64 fails = READ_ONCE(ftd->data_size_fails);
	size_t pages;

	if (fails)
		return -fails;
	mutex_lock(&ftd->lock);
	ftd_age(ftd);
	pages = ftd->pages;
	if (ftd_is_saving(ftd->mig_state))
		pages = bitmap_weight(ftd->todo, pages) + bitmap_weight(ftd->dirty, pages);
	*bytes = pages * FTD_PAGE + sizeof(struct ftd_record) + sizeof(struct ftd_end);
	mutex_unlock(&ftd->lock);
	return 0;
}

static const struct vfio_migration_ops ftd_migration_ops = {
	.migration_set_state = ftd_set_state,
	.migration_get_state = ftd_get_state,
	.migration_get_data_size = ftd_get_data_size,
};

/* DMA logging; a kernel without CONFIG_IOMMUFD_DRIVER never gets as far as log_read_and_clear. */

static int ftd_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes,
			 u64 *page_size)
{
	struct ftd *ftd = to_ftd(vdev);
	int ret = -EINVAL;

	mutex_lock(&ftd->lock);
	if (!ftd->logging) {
		ftd->logging = true;
		*page_size = FTD_PAGE;
		ret = 0;
	}
	mutex_unlock(&ftd->lock);
	return ret;
}

static int ftd_log_stop(struct vfio_device *vdev)
{
	struct ftd *ftd = to_ftd(vdev);

	mutex_lock(&ftd->lock);
	ftd->logging = false;
	xa_destroy(&ftd->dma_log);
	mutex_unlock(&ftd->lock);
	return 0;
}

static int ftd_log_read_and_clear(struct vfio_device *vdev, unsigned long iova,
				  unsigned long length, struct iova_bitmap *dirty)
{
	struct ftd *ftd = to_ftd(vdev);
	unsigned long page;
	void *entry;
	int ret = -EINVAL;

	mutex_lock(&ftd->lock);
	if (ftd->logging) {
		xa_for_each_range (&ftd->dma_log, page, entry, iova / FTD_PAGE,
				   (iova + length - 1) / FTD_PAGE) {
			iova_bitmap_set(dirty, page * FTD_PAGE, FTD_PAGE);
			xa_erase(&ftd->dma_log, page);
		}
		ret = 0;
	}
	mutex_unlock(&ftd->lock);
	return ret;
}

static const struct vfio_log_ops ftd_log_ops = {
	.log_start = ftd_log_start,
	.log_stop = ftd_log_stop,
	.log_read_and_clear = ftd_log_read_and_clear,
};

void ftd_offer(struct ftd *ftd)
{
	ftd->vdev.migration_flags = ftd->mig_flags;
	ftd->vdev.mig_ops = ftd->mig_flags ? &ftd_migration_ops : NULL;
	ftd->vdev.log_ops = ftd->dma_logging ? &ftd_log_ops : NULL;
}
