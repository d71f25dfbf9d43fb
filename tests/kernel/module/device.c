// SPDX-License-Identifier: GPL-2.0-only
/* The test device as its guest sees it: registers, DMA, interrupts, config space, reset */
#include <linux/pci_ids.h>
#include <linux/pci_regs.h>
#include <linux/vmalloc.h>

#include "ferry-vfio-testdev.h"

void ftd_enter(struct ftd *ftd, enum vfio_device_mig_state state)
{
	WRITE_ONCE(ftd->mig_state, state);
	spin_lock(&ftd->knobs);
	ftd->log[ftd->logged++ % FTD_LOG_ENTRIES] = state;
	spin_unlock(&ftd->knobs);
}

/* The device's insides */

static void ftd_touch(struct ftd *ftd, size_t offset, size_t bytes)
{
	size_t page = offset / FTD_PAGE, last = (offset + bytes - 1) / FTD_PAGE;

	for (; bytes && page <= last; page++)
		if (!test_bit(page, ftd->todo))
			__set_bit(page, ftd->dirty);
	ftd->regs[REG_GENERATION / 4]++;
}

/* Makes the changes that dirty_rate asks for since the last time. */
void ftd_age(struct ftd *ftd)
{
	s64 rate = READ_ONCE(ftd->dirty_rate);
	ktime_t now = ktime_get();
	u64 pages;

	if (!ftd->open || !rate || !ftd_is_active(ftd->mig_state)) {
		ftd->aged = now;
		return;
	}
	pages = div_u64(min_t(u64, ktime_us_delta(now, ftd->aged), USEC_PER_SEC * 10) * rate,
			USEC_PER_SEC * FTD_PAGE);
	if (!pages)
		return;
	ftd->aged = now;
	for (pages = min_t(u64, pages, ftd->pages); pages; pages--) {
		(*(u64 *)(ftd->state + ftd->age_page * FTD_PAGE))++;
		ftd_touch(ftd, ftd->age_page * FTD_PAGE, FTD_PAGE);
		ftd->age_page = (ftd->age_page + 1) % ftd->pages;
	}
}

static void ftd_fill(struct ftd *ftd, u32 seed)
{
	u64 *word = (u64 *)ftd->state, x = seed * 0x9e3779b97f4a7c15ULL;
	size_t i;

	if (seed) {
		for (i = 0; i < ftd->state_bytes / 8; i++, x += 0xbf58476d1ce4e5b9ULL)
			word[i] = x ^ (x >> 29);
	} else {
		memset(ftd->state, 0, ftd->state_bytes);
	}
	ftd_touch(ftd, 0, ftd->state_bytes);
}

static u64 ftd_digest(struct ftd *ftd)
{
	u64 *word = (u64 *)ftd->state, h = 0xcbf29ce484222325ULL;
	size_t i;

	for (i = 0; i < ftd->state_bytes / 8; i++)
		h = (h ^ word[i]) * 0x100000001b3ULL;
	return h;
}

static void ftd_raise(struct ftd *ftd, u32 vector)
{
	if (vector >= FTD_VECTORS || !ftd->vector[vector])
		return;
	if (!ftd_is_active(ftd->mig_state) && ftd->mig_state != VFIO_DEVICE_STATE_RUNNING_P2P &&
	    ftd->mig_state != VFIO_DEVICE_STATE_PRE_COPY_P2P)
		return;
	eventfd_signal(ftd->vector[vector]);
	ftd->regs[REG_IRQ_COUNT / 4]++;
}

static int ftd_log_dma(struct ftd *ftd, u64 iova, size_t bytes)
{
	u64 page;
	int ret;

	if (!ftd->logging)
		return 0;
	for (page = iova / FTD_PAGE; page <= (iova + bytes - 1) / FTD_PAGE; page++) {
		ret = xa_err(xa_store(&ftd->dma_log, page, xa_mk_value(1), GFP_KERNEL));
		if (ret)
			return ret;
	}
	return 0;
}

static int ftd_dma(struct ftd *ftd, u32 command)
{
	u64 iova = ftd->regs[REG_DMA_IOVA / 4] | (u64)ftd->regs[REG_DMA_IOVA / 4 + 1] << 32;
	u32 bytes = ftd->regs[REG_DMA_BYTES / 4], offset = ftd->regs[REG_STATE_OFS / 4];
	u8 *fill = NULL, *data;
	int ret;

	if (!(ftd->config[PCI_COMMAND] & PCI_COMMAND_MASTER))
		return -EPERM;
	if (!ftd_is_active(ftd->mig_state))
		return -EBUSY;
	if (!bytes || bytes % 4 || bytes > FTD_DMA_MAX || command < 1 || command > 3)
		return -EINVAL;

	if (command == 1) {
		fill = kvmalloc(bytes, GFP_KERNEL);
		if (!fill)
			return -ENOMEM;
		memset32((u32 *)fill, ftd->regs[REG_DMA_VALUE / 4], bytes / 4);
		data = fill;
	} else {
		if ((u64)offset + bytes > ftd->state_bytes)
			return -EINVAL;
		data = ftd->state + offset;
	}
	/* Logged first: a write that fails may have got half way. */
	ret = command == 2 ? 0 : ftd_log_dma(ftd, iova, bytes);
	if (!ret)
		ret = vfio_dma_rw(&ftd->vdev, iova, data, bytes, command != 2);
	if (command == 2)
		ftd_touch(ftd, offset, bytes);
	kvfree(fill);
	if (!ret)
		ftd->regs[REG_DMA_COUNT / 4]++;
	return ret;
}

/* DMA that the device does by itself */

static u64 ftd_reg64(struct ftd *ftd, u32 reg)
{
	return ftd->regs[reg / 4] | (u64)ftd->regs[reg / 4 + 1] << 32;
}

static void ftd_set_reg64(struct ftd *ftd, u32 reg, u64 value)
{
	ftd->regs[reg / 4] = value;
	ftd->regs[reg / 4 + 1] = value >> 32;
}

static int ftd_auto_write(struct ftd *ftd, u64 pages)
{
	u64 iova = ftd_reg64(ftd, REG_AUTO_IOVA), bytes = ftd_reg64(ftd, REG_AUTO_BYTES);
	u64 *page, at, number;
	int ret = 0;

	if (!bytes || bytes % FTD_PAGE || iova % FTD_PAGE)
		return -EINVAL;
	page = kmalloc(FTD_PAGE, GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	for (; pages && !ret; pages--) {
		number = ftd_reg64(ftd, REG_AUTO_PAGES) + 1;
		memset64(page, number, FTD_PAGE / sizeof(*page));
		div64_u64_rem(number - 1, bytes / FTD_PAGE, &at);
		at = iova + at * FTD_PAGE;
		ret = ftd_log_dma(ftd, at, FTD_PAGE);
		if (!ret)
			ret = vfio_dma_rw(&ftd->vdev, at, page, FTD_PAGE, true);
		if (!ret)
			ftd_set_reg64(ftd, REG_AUTO_PAGES, number);
	}
	kfree(page);
	return ret;
}

/* How many pages dma_rate asks for since the last time; not more than a tenth of a second's. */
static u64 ftd_auto_due(struct ftd *ftd)
{
	s64 rate = READ_ONCE(ftd->dma_rate);
	ktime_t now = ktime_get();
	s64 us = min_t(s64, ktime_us_delta(now, ftd->auto_since), USEC_PER_SEC / 10);
	u64 pages = div_u64(us * rate, USEC_PER_SEC);

	if (pages || !rate)
		ftd->auto_since = now;
	return pages;
}

void ftd_auto_dma_work(struct work_struct *work)
{
	struct ftd *ftd = container_of(to_delayed_work(work), struct ftd, auto_dma);
	u32 *control = &ftd->regs[REG_AUTO_CONTROL / 4];
	int ret;

	mutex_lock(&ftd->lock);
	if (ftd->open && *control & 1) {
		if (!ftd_is_active(ftd->mig_state) ||
		    !(ftd->config[PCI_COMMAND] & PCI_COMMAND_MASTER)) {
			ftd->auto_since = ktime_get();
			ret = 0;
		} else {
			ret = ftd_auto_write(ftd, ftd_auto_due(ftd));
		}
		ftd->regs[REG_AUTO_STATUS / 4] = -ret;
		if (ret)
			*control &= ~1;
		else
			schedule_delayed_work(&ftd->auto_dma, 1);
	}
	mutex_unlock(&ftd->lock);
}

/* If AUTO_CONTROL, just written or loaded, says so. The work ends by itself when it no longer does. */
void ftd_auto_dma_begin(struct ftd *ftd)
{
	if (!(ftd->regs[REG_AUTO_CONTROL / 4] & 1))
		return;
	ftd->auto_since = ktime_get();
	schedule_delayed_work(&ftd->auto_dma, 1);
}

static u32 ftd_read_reg(struct ftd *ftd, u32 reg)
{
	u64 digest;
	u32 *offset = &ftd->regs[REG_STATE_OFS / 4];

	switch (reg) {
	case REG_ID:
		return 0x52524546;
	case REG_VERSION:
		return 1;
	case REG_STATE_BYTES:
		return ftd->state_bytes;
	case REG_STATE_DATA:
		if (*offset % 4 || *offset >= ftd->state_bytes)
			return ~0;
		*offset += 4;
		return *(u32 *)(ftd->state + *offset - 4);
	case REG_DIGEST:
		digest = ftd_digest(ftd);
		ftd->regs[reg / 4 + 1] = digest >> 32;
		return digest;
	}
	return reg < REG_END ? ftd->regs[reg / 4] : 0;
}

static void ftd_write_reg(struct ftd *ftd, u32 reg, u32 value)
{
	u32 *offset = &ftd->regs[REG_STATE_OFS / 4];

	switch (reg) {
	case REG_STATE_DATA:
		if (*offset % 4 || *offset >= ftd->state_bytes)
			break;
		*(u32 *)(ftd->state + *offset) = value;
		ftd_touch(ftd, *offset, 4);
		*offset += 4;
		break;
	case REG_FILL:
		ftd->regs[reg / 4] = value;
		ftd_fill(ftd, value);
		break;
	case REG_DMA_CMD:
		ftd->regs[REG_DMA_STATUS / 4] = -ftd_dma(ftd, value & 0xff);
		if (value >> 8)
			ftd_raise(ftd, (value >> 8) - 1);
		break;
	case REG_IRQ_RAISE:
		ftd_raise(ftd, value);
		break;
	case REG_STATE_OFS:
	case REG_SCRATCH ... REG_DMA_IOVA - 4:
	case REG_DMA_IOVA:
	case REG_DMA_IOVA + 4:
	case REG_DMA_BYTES:
	case REG_DMA_VALUE:
	case REG_AUTO_IOVA:
	case REG_AUTO_IOVA + 4:
	case REG_AUTO_BYTES:
	case REG_AUTO_BYTES + 4:
		ftd->regs[reg / 4] = value;
		break;
	case REG_AUTO_CONTROL:
		ftd->regs[reg / 4] = value;
		ftd_auto_dma_begin(ftd);
		break;
	}
}

static void ftd_put16(u8 *at, u16 value)
{
	at[0] = value;
	at[1] = value >> 8;
}

static void ftd_clear(struct ftd *ftd)
{
	u8 *c = ftd->config;
	int i;

	memset(ftd->state, 0, ftd->state_bytes);
	memset(ftd->ram, 0, FTD_RAM_BYTES);
	memset(ftd->regs, 0, sizeof(ftd->regs));
	memset(ftd->bar2, 0, sizeof(ftd->bar2));
	for (i = 0; i < FTD_VECTORS; i++)
		ftd->bar2[i * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL] =
			PCI_MSIX_ENTRY_CTRL_MASKBIT;

	memset(c, 0, FTD_CONFIG_BYTES);
	ftd_put16(c + PCI_VENDOR_ID, 0xfe44);
	ftd_put16(c + PCI_DEVICE_ID, 0x0001);
	ftd_put16(c + PCI_STATUS, PCI_STATUS_CAP_LIST);
	c[PCI_REVISION_ID] = 1;
	ftd_put16(c + PCI_CLASS_DEVICE, PCI_CLASS_OTHERS << 8);
	ftd_put16(c + PCI_SUBSYSTEM_VENDOR_ID, 0xfe44);
	ftd_put16(c + PCI_SUBSYSTEM_ID, 0x0001);
	c[PCI_CAPABILITY_LIST] = 0x40;
	c[0x40] = PCI_CAP_ID_MSIX;
	c[0x41] = 0x50;
	ftd_put16(c + 0x42, FTD_VECTORS - 1);
	c[0x44] = 2;
	ftd_put16(c + 0x48, 0x800 | 2);
	c[0x50] = PCI_CAP_ID_VNDR;
	c[0x52] = 0x10;
	memcpy(c + 0x54, "ferry-test", 10);
}

/* Which bits of config space can be written. A BAR's low bits stay zero: that tells its size. */
static u8 ftd_config_mask(u32 offset)
{
	u32 bar;

	switch (offset) {
	case PCI_COMMAND:
		return PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	case PCI_COMMAND + 1:
		return PCI_COMMAND_INTX_DISABLE >> 8;
	case PCI_CACHE_LINE_SIZE:
	case PCI_LATENCY_TIMER:
	case PCI_INTERRUPT_LINE:
		return 0xff;
	case PCI_BASE_ADDRESS_0 ... PCI_BASE_ADDRESS_0 + 3:
	case PCI_BASE_ADDRESS_2 ... PCI_BASE_ADDRESS_2 + 3:
		bar = offset < PCI_BASE_ADDRESS_2 ? -FTD_BAR0_BYTES : -FTD_BAR2_BYTES;
		return bar >> (offset % 4 * 8);
	case 0x43:
		return (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
	}
	return 0;
}

/* The face of a PCI function */

static size_t ftd_region_bytes(u32 index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return FTD_BAR0_BYTES;
	case VFIO_PCI_BAR2_REGION_INDEX:
		return FTD_BAR2_BYTES;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return FTD_CONFIG_BYTES;
	}
	return 0;
}

/* Reads or writes @bytes of a region through @data; returns how many were done. */
static ssize_t ftd_access(struct ftd *ftd, u32 index, u32 offset, u8 *data, size_t bytes,
			  bool write)
{
	u8 *memory = NULL;
	size_t i;
	u32 word;

	if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		for (i = 0; i < bytes; i++) {
			u8 mask = ftd_config_mask(offset + i), *byte = &ftd->config[offset + i];

			if (write)
				*byte = (*byte & ~mask) | (data[i] & mask);
			else
				data[i] = *byte;
		}
		return bytes;
	}
	if (index == VFIO_PCI_BAR2_REGION_INDEX)
		memory = ftd->bar2 + offset;
	else if (offset >= FTD_REG_BYTES)
		memory = ftd->ram + offset - FTD_REG_BYTES;
	if (memory && write)
		memcpy(memory, data, bytes);
	else if (memory)
		memcpy(data, memory, bytes);
	if (memory)
		return bytes;

	if ((bytes != 4 && bytes != 8) || offset % bytes)
		return -EINVAL;
	for (i = 0; i < bytes; i += 4) {
		memcpy(&word, data + i, 4);
		if (write)
			ftd_write_reg(ftd, offset + i, word);
		else
			word = ftd_read_reg(ftd, offset + i);
		memcpy(data + i, &word, 4);
	}
	return bytes;
}

static ssize_t ftd_rw(struct vfio_device *vdev, char __user *to, const char __user *from,
		      size_t bytes, loff_t *ppos)
{
	struct ftd *ftd = to_ftd(vdev);
	u32 index = *ppos >> FTD_REGION_SHIFT;
	u64 offset = *ppos & FTD_REGION_MASK;
	u8 data[256];
	ssize_t ret;

	if (offset >= ftd_region_bytes(index))
		return -EINVAL;
	bytes = min3(bytes, ftd_region_bytes(index) - (size_t)offset, sizeof(data));
	if (from && copy_from_user(data, from, bytes))
		return -EFAULT;
	mutex_lock(&ftd->lock);
	ftd_age(ftd);
	ret = ftd_access(ftd, index, offset, data, bytes, from);
	mutex_unlock(&ftd->lock);
	if (ret > 0 && to && copy_to_user(to, data, ret))
		return -EFAULT;
	if (ret > 0)
		*ppos += ret;
	return ret;
}

static ssize_t ftd_read(struct vfio_device *vdev, char __user *buf, size_t bytes, loff_t *ppos)
{
	return ftd_rw(vdev, buf, NULL, bytes, ppos);
}

static ssize_t ftd_write(struct vfio_device *vdev, const char __user *buf, size_t bytes,
			 loff_t *ppos)
{
	return ftd_rw(vdev, NULL, buf, bytes, ppos);
}

static int ftd_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	struct ftd *ftd = to_ftd(vdev);
	u64 pos = (u64)vma->vm_pgoff << PAGE_SHIFT, offset = pos & FTD_REGION_MASK;
	unsigned long bytes = vma->vm_end - vma->vm_start;

	if (pos >> FTD_REGION_SHIFT != VFIO_PCI_BAR0_REGION_INDEX || !(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (offset < FTD_REG_BYTES || bytes > FTD_BAR0_BYTES || offset > FTD_BAR0_BYTES - bytes)
		return -EINVAL;
	return remap_vmalloc_range(vma, ftd->ram, (offset - FTD_REG_BYTES) >> PAGE_SHIFT);
}

static long ftd_region_info(struct vfio_region_info __user *arg)
{
	struct {
		struct vfio_region_info_cap_sparse_mmap cap;
		struct vfio_region_sparse_mmap_area area;
	} sparse = {
		.cap.header = { .id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1 },
		.cap.nr_areas = 1,
		.area = { .offset = FTD_REG_BYTES, .size = FTD_RAM_BYTES },
	};
	struct vfio_info_cap caps = {};
	struct vfio_region_info info;
	const size_t minsz = offsetofend(struct vfio_region_info, offset);
	long ret = 0;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index >= VFIO_PCI_NUM_REGIONS ||
	    info.index == VFIO_PCI_VGA_REGION_INDEX)
		return -EINVAL;
	info.offset = (u64)info.index << FTD_REGION_SHIFT;
	info.size = ftd_region_bytes(info.index);
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	info.cap_offset = 0;
	if (info.index == VFIO_PCI_BAR0_REGION_INDEX) {
		info.flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
		ret = vfio_info_add_capability(&caps, &sparse.cap.header, sizeof(sparse));
		if (ret)
			return ret;
		if (info.argsz < sizeof(info) + caps.size) {
			info.argsz = sizeof(info) + caps.size;
		} else {
			vfio_info_cap_shift(&caps, sizeof(info));
			info.cap_offset = sizeof(info);
			if (copy_to_user((u8 __user *)arg + sizeof(info), caps.buf, caps.size))
				ret = -EFAULT;
		}
		kfree(caps.buf);
	}
	return ret ?: copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long ftd_irq_info(struct vfio_irq_info __user *arg)
{
	struct vfio_irq_info info;
	const size_t minsz = offsetofend(struct vfio_irq_info, count);

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.count = info.index == VFIO_PCI_MSIX_IRQ_INDEX ? FTD_VECTORS : 0;
	info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static void ftd_set_vector(struct ftd *ftd, u32 vector, struct eventfd_ctx *ctx)
{
	if (ftd->vector[vector])
		eventfd_ctx_put(ftd->vector[vector]);
	ftd->vector[vector] = ctx;
}

static int ftd_set_vectors(struct ftd *ftd, struct vfio_irq_set *hdr, void *data)
{
	struct eventfd_ctx *ctx;
	u32 type = hdr->flags & VFIO_IRQ_SET_DATA_TYPE_MASK, i;

	if ((hdr->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (type == VFIO_IRQ_SET_DATA_NONE && !hdr->count)
		for (i = 0; i < FTD_VECTORS; i++)
			ftd_set_vector(ftd, i, NULL);
	for (i = 0; i < hdr->count; i++) {
		if (type == VFIO_IRQ_SET_DATA_EVENTFD) {
			s32 fd = ((s32 *)data)[i];

			ctx = fd < 0 ? NULL : eventfd_ctx_fdget(fd);
			if (IS_ERR(ctx))
				return PTR_ERR(ctx);
			ftd_set_vector(ftd, hdr->start + i, ctx);
		} else if (type == VFIO_IRQ_SET_DATA_NONE || ((u8 *)data)[i]) {
			ftd_raise(ftd, hdr->start + i);
		}
	}
	return 0;
}

static long ftd_set_irqs(struct ftd *ftd, struct vfio_irq_set __user *arg)
{
	struct vfio_irq_set hdr;
	const size_t minsz = offsetofend(struct vfio_irq_set, count);
	size_t bytes = 0;
	void *data = NULL;
	long ret;

	if (copy_from_user(&hdr, arg, minsz))
		return -EFAULT;
	ret = vfio_set_irqs_validate_and_prepare(
		&hdr, hdr.index == VFIO_PCI_MSIX_IRQ_INDEX ? FTD_VECTORS : 0, VFIO_PCI_NUM_IRQS,
		&bytes);
	if (ret)
		return ret;
	if (hdr.index != VFIO_PCI_MSIX_IRQ_INDEX)
		return -ENOTTY;
	if (bytes) {
		data = memdup_user(&arg->data, bytes);
		if (IS_ERR(data))
			return PTR_ERR(data);
	}
	mutex_lock(&ftd->lock);
	ret = ftd_set_vectors(ftd, &hdr, data);
	mutex_unlock(&ftd->lock);
	kfree(data);
	return ret;
}

static long ftd_device_reset(struct ftd *ftd)
{
	mutex_lock(&ftd->lock);
	ftd_end_stream(ftd);
	ftd_clear(ftd);
	ftd->resets++;
	ftd_enter(ftd, VFIO_DEVICE_STATE_RUNNING);
	mutex_unlock(&ftd->lock);
	return 0;
}

static long ftd_device_info(struct vfio_device_info __user *arg)
{
	struct vfio_device_info info;
	const size_t minsz = offsetofend(struct vfio_device_info, num_irqs);

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long ftd_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct ftd *ftd = to_ftd(vdev);

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return ftd_device_info((void __user *)arg);
	case VFIO_DEVICE_GET_REGION_INFO:
		return ftd_region_info((void __user *)arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return ftd_irq_info((void __user *)arg);
	case VFIO_DEVICE_SET_IRQS:
		return ftd_set_irqs(ftd, (void __user *)arg);
	case VFIO_DEVICE_RESET:
		return ftd_device_reset(ftd);
	}
	return -ENOTTY;
}

static void ftd_free_state(struct ftd *ftd)
{
	vfree(ftd->state);
	kvfree(ftd->todo);
	kvfree(ftd->dirty);
	ftd->state = NULL;
	ftd->todo = ftd->dirty = NULL;
}

static int ftd_open_device(struct vfio_device *vdev)
{
	struct ftd *ftd = to_ftd(vdev);
	int ret = 0;

	mutex_lock(&ftd->lock);
	ftd->pages = ftd->state_bytes / FTD_PAGE;
	ftd->state = vmalloc(ftd->state_bytes);
	ftd->todo = kvcalloc(BITS_TO_LONGS(ftd->pages), sizeof(long), GFP_KERNEL);
	ftd->dirty = kvcalloc(BITS_TO_LONGS(ftd->pages), sizeof(long), GFP_KERNEL);
	if (ftd->state && ftd->todo && ftd->dirty) {
		ftd->age_page = 0;
		ftd->aged = ktime_get();
		ftd->open = true;
		ftd_clear(ftd);
		ftd_enter(ftd, VFIO_DEVICE_STATE_RUNNING);
	} else {
		ftd_free_state(ftd);
		ret = -ENOMEM;
	}
	mutex_unlock(&ftd->lock);
	return ret;
}

static void ftd_close_device(struct vfio_device *vdev)
{
	struct ftd *ftd = to_ftd(vdev);
	int i;

	mutex_lock(&ftd->lock);
	ftd_end_stream(ftd);
	for (i = 0; i < FTD_VECTORS; i++)
		ftd_set_vector(ftd, i, NULL);
	ftd->logging = false;
	xa_destroy(&ftd->dma_log);
	ftd->open = false;
	WRITE_ONCE(ftd->mig_state, VFIO_DEVICE_STATE_RUNNING);
	ftd_free_state(ftd);
	mutex_unlock(&ftd->lock);
	cancel_delayed_work_sync(&ftd->auto_dma); /* it would need the lock */
}

/* Nothing stays pinned between two DMA commands, but without this the core allows no DMA. */
static void ftd_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
}

const struct vfio_device_ops ftd_ops = {
	.name = "ferry-vfio-testdev",
	.init = ftd_init,
	.release = ftd_release,
	.open_device = ftd_open_device,
	.close_device = ftd_close_device,
	.read = ftd_read,
	.write = ftd_write,
	.mmap = ftd_mmap,
	.ioctl = ftd_ioctl,
	.dma_unmap = ftd_dma_unmap,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};
